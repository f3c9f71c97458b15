package lvm

// layout tells where the units of a striped or raid segment lie: in which leg and in which row of
// it. The formulas are those of dm-stripe, of drivers/md/raid5.c (including raid6), and of raid10.c
// (near copies).
type layout struct {
	legs   int64
	parity int64 // number of units of each row that hold no data
	copies int64 // of each unit; 1 except in raid10
	image  func(row, d, legs int64) int64
}

// data returns how many units of data a row has. There must be no copies.
func (l *layout) data() int64 { return l.legs - l.parity }

// place returns the leg and the row of a unit.
func (l *layout) place(unit int64) (leg, row int64) {
	if l.copies > 1 {
		return l.copy(unit, 0)
	}
	row = unit / l.data()
	return l.image(row, unit%l.data(), l.legs), row
}

// copy returns the leg and the row of copy c of a unit.
func (l *layout) copy(unit, c int64) (leg, row int64) {
	x := unit*l.copies + c
	return x % l.legs, x / l.legs
}

// row returns the row in which a unit begins.
func (l *layout) row(unit int64) int64 {
	if l.copies > 1 {
		return unit * l.copies / l.legs
	}
	return unit / l.data()
}

// rows returns how many rows n units take.
func (l *layout) rows(n int64) int64 {
	if l.copies > 1 {
		return (n*l.copies + l.legs - 1) / l.legs
	}
	return (n + l.data() - 1) / l.data()
}

// before returns how many units begin in the rows before row.
func (l *layout) before(row int64) int64 {
	if l.copies > 1 {
		return (row*l.legs + l.copies - 1) / l.copies
	}
	return row * l.data()
}

// raidLevel is a raid type of the text.
type raidLevel struct {
	name   string // of the family
	parity int64
	least  int64 // least number of devices
	image  func(row, d, legs int64) int64
	// The names in the superblocks: level and algorithm of md (raid_types in drivers/md/dm-raid.c).
	level, algorithm uint32
}

var raidLevels = map[string]raidLevel{
	"raid0":       {"raid0", 0, 1, inOrder, 0, 0},
	"raid0_meta":  {"raid0", 0, 1, inOrder, 0, 0},
	"raid1":       {"raid1", 0, 1, nil, 1, 0},
	"raid4":       {"raid4", 1, 2, parityFirst, 5, 4},
	"raid5":       {"raid5", 1, 2, leftSymmetric, 5, 2},
	"raid5_ls":    {"raid5", 1, 2, leftSymmetric, 5, 2},
	"raid5_la":    {"raid5", 1, 2, leftAsymmetric, 5, 0},
	"raid5_ra":    {"raid5", 1, 2, rightAsymmetric, 5, 1},
	"raid5_rs":    {"raid5", 1, 2, rightSymmetric, 5, 3},
	"raid5_n":     {"raid5", 1, 2, inOrder, 5, 5},
	"raid6":       {"raid6", 2, 4, zeroRestart, 6, 8},
	"raid6_zr":    {"raid6", 2, 4, zeroRestart, 6, 8},
	"raid6_nr":    {"raid6", 2, 4, nRestart, 6, 9},
	"raid6_nc":    {"raid6", 2, 4, nContinue, 6, 10},
	"raid6_n_6":   {"raid6", 2, 4, inOrder, 6, 5},
	"raid6_la_6":  {"raid6", 2, 4, qLast(leftAsymmetric), 6, 16},
	"raid6_ra_6":  {"raid6", 2, 4, qLast(rightAsymmetric), 6, 17},
	"raid6_ls_6":  {"raid6", 2, 4, qLast(leftSymmetric), 6, 18},
	"raid6_rs_6":  {"raid6", 2, 4, qLast(rightSymmetric), 6, 19},
	"raid10":      {"raid10", 0, 2, nil, 10, 0},
	"raid10_near": {"raid10", 0, 2, nil, 10, 0},
}

// These return the image that holds data unit d of the given row of n images.

func inOrder(_, d, _ int64) int64     { return d }
func parityFirst(_, d, _ int64) int64 { return d + 1 }

// leftParity: the parity moves to the left; in row 0 it is in the last image.
func leftParity(row, n int64) int64 { return n - 1 - row%n }

func leftSymmetric(row, d, n int64) int64   { return (leftParity(row, n) + 1 + d) % n }
func leftAsymmetric(row, d, n int64) int64  { return skip(d, leftParity(row, n), 1) }
func rightSymmetric(row, d, n int64) int64  { return (row%n + 1 + d) % n }
func rightAsymmetric(row, d, n int64) int64 { return skip(d, row%n, 1) }

// P and Q are side by side, P in image row%n, or wrap around the edge.
func zeroRestart(row, d, n int64) int64 { return besidePQ(d, row%n, n) }
func nRestart(row, d, n int64) int64    { return besidePQ(d, n-1-(row+1)%n, n) }
func nContinue(row, d, n int64) int64   { return (leftParity(row, n) + 1 + d) % n }

func besidePQ(d, p, n int64) int64 {
	if p == n-1 {
		return d + 1
	}
	return skip(d, p, 2)
}

// qLast puts Q into the last image, and lays out the others as in a raid5.
func qLast(raid5 func(row, d, n int64) int64) func(row, d, n int64) int64 {
	return func(row, d, n int64) int64 { return raid5(row, d, n-1) }
}

// skip moves d past the parity units, which start at p.
func skip(d, p, units int64) int64 {
	if d >= p {
		return d + units
	}
	return d
}
