// Package arch holds no code: its tests look at the tree itself, at who imports what and how large files are.
package arch
