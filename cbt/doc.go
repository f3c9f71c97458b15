// Package cbt is the delta: what to write over point A of some images to get
// point B, as one .cbt file. docs/delta-format.md is the specification; this
// package writes it, reads it, checks it, stacks chains of it into images and
// applies it. It knows images only as sparse.View.
//
//	+-------+--------+-------+------+-----+------+-----+------+---------+
//	| magic | header | table | data | ... | leaf | ... | root | trailer |
//	+-------+--------+-------+------+-----+------+-----+------+---------+
//	 LZ4     skip 0   skip 1  LZ4          skip 2       skip 3  skip 4
package cbt
