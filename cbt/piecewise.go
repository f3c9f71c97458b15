package cbt

// piecewise fills p with the bytes at off, block by block, each from whatever deltas have it: some
// blocks may be readable by one route only, and others only by another. It asks each delta once for
// each block, so it is for blocks that no single route gives.
func (v *Routed) piecewise(p []byte, off int64) error {
	if v.last.stream().To == "" && v.last.stream().Full {
		return errNoWay
	}
	all, err := v.routes.Catalogue()
	if err != nil {
		return err
	}
	if !all.forked(v.last) {
		return errNoWay
	}
	for len(p) > 0 {
		n := min(int(BlockSize-off%BlockSize), len(p))
		b := &blockSearch{v: v, all: all, tried: map[Step]bool{}, bad: avoided{}}
		if !b.after(v.last, p[:n], off) && !b.at(v.last.to(), p[:n], off) {
			return errNoWay
		}
		v.pass(b.bad)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// forked reports whether there is any choice on the way back from s.
func (c *Catalogue) forked(s Step) bool {
	if s.stream().To != "" && len(c.before(s.to())) > 1 {
		return true
	}
	seen := map[state]bool{}
	for !s.stream().Full && !seen[s.from()] {
		seen[s.from()] = true
		before := c.before(s.from())
		if len(before) != 1 {
			return len(before) > 1
		}
		s = before[0]
	}
	return false
}

// blockSearch looks for the bytes of one block.
type blockSearch struct {
	v     *Routed
	all   *Catalogue
	tried map[Step]bool
	bad   avoided // deltas that could not be read
}

// at fills p with the bytes at off of a state, and reports whether it could.
func (b *blockSearch) at(need state, p []byte, off int64) bool {
	if need.point == "" {
		return false
	}
	for _, s := range b.all.before(need) {
		if b.after(s, p, off) {
			return true
		}
	}
	return false
}

// after fills p with the bytes at off of the state after s, and reports whether it could. It takes
// the bytes that s has from s, and the others from the state where s begins.
func (b *blockSearch) after(s Step, p []byte, off int64) bool {
	if b.tried[s] {
		return false
	}
	b.tried[s] = true
	d, err := b.v.open(s.Ends)
	if err != nil {
		b.bad.add(err)
		return false
	}
	pos, end := off, off+int64(len(p))
	rest := func(to int64) bool { // [pos, to) is not s's
		if pos >= to {
			return true
		}
		t := s.stream()
		return !t.Full && to <= min(t.growth(), t.From.Size) && b.at(s.from(), p[pos-off:to-off], pos)
	}
	for x, err := range d.parts(s.Index, off, end) {
		if err == nil && !rest(x.off) {
			return false
		}
		if err == nil {
			err = d.readPart(p[x.off-off:], x)
		}
		if err != nil {
			b.bad.add(d.in(err))
			return false
		}
		pos = x.end()
	}
	return rest(end)
}

// readPart fills the first x.n bytes of p with those of a part.
func (d *Delta) readPart(p []byte, x part) error {
	p = p[:x.n]
	if x.zero {
		clear(p)
		return nil
	}
	data, giveBack, err := d.payloadOf(x)
	defer giveBack()
	if err == nil {
		copy(p, data[x.at:])
	}
	return err
}
