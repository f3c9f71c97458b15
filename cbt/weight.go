package cbt

// Weight is what MergedSize needs to know about a delta.
type Weight struct {
	Streams []Stream
	Totals  []Totals
	Tables  int64 // bytes of the tables of all chunks
}

// Weight reads the index, 40 bytes for each chunk, and returns the weight of d.
func (d *Delta) Weight() (Weight, error) {
	w := Weight{Streams: d.Header.Streams, Totals: d.Totals()}
	for i := range d.root.leaves {
		refs, err := d.leaf(i)
		if err != nil {
			return Weight{}, err
		}
		for _, r := range refs {
			w.Tables += int64(r.tableLen)
		}
	}
	return w, nil
}

// MergedSize returns the most bytes that a merge of deltas, oldest first, can have. It assumes that
// nothing can be compressed, and that each extent is cut at both ends of every other one.
func MergedSize(line []Weight) int64 {
	const perChunk, perStream = 256, 2 << 10 // frames and index; JSON
	streams := line[len(line)-1].Streams
	var payload, tables int64
	for _, s := range streams {
		var data int64
	back:
		for i := len(line) - 1; i >= 0; i-- {
			for k, x := range line[i].Streams {
				if x.Name == s.Name {
					data += line[i].Totals[k].Data
					if x.Full {
						break back
					}
				}
			}
		}
		payload += min(data, s.Size)
	}
	for _, w := range line {
		tables += 2*w.Tables + int64(len(w.Streams))*perStream
	}
	chunks := payload/maxPayload + tables/(maxExtents*extentSize) + 2*int64(len(streams)) + 2
	return payload + payload/512 + tables + chunks*perChunk + 4<<10
}
