// Package cbt is the delta: what to write over point A of some images to get point B, in one .cbt
// file. docs/delta-format.md is the specification. This package writes deltas, reads and checks
// them, stacks chains of them into images, and applies them. It knows images only as sparse.View.
//
//	+-------+--------+-------+------+-----+------+-----+------+---------+
//	| magic | header | table | data | ... | leaf | ... | root | trailer |
//	+-------+--------+-------+------+-----+------+-----+------+---------+
//	 LZ4     skip 0   skip 1  LZ4          skip 2       skip 3  skip 4
package cbt
