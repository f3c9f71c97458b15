package cbt

import "context"

// Estimate returns roughly how many bytes the delta has that WriteMerges writes. Each run of data
// counts as its share of the chunk that it comes from. Estimate reads the tables of all chunks and
// none of their payload.
func Estimate(ctx context.Context, merges []*Merge) (int64, error) {
	const perChunk, perStream = 150, 300 // frames and index; JSON
	n := int64(1 << 10)
	for _, m := range merges {
		m = m.sharing()
		var data, tables, chunks int64
		var stored float64
		err := m.windows(ctx, mergeWindow, func(w *window) error {
			for _, s := range w.from {
				t, err := m.layers[s.layer].Delta.table(s.k)
				if err != nil {
					return err
				}
				stored += float64(s.n) * float64(t.dataLen) / float64(t.payload)
			}
			data += w.data
			tables += int64(len(w.extents))*extentSize + int64(len(w.old))*4
			return ctx.Err()
		})
		if err != nil {
			return 0, err
		}
		chunks = data/maxPayload + tables/(maxExtents*extentSize) + 1
		n += int64(stored) + tables + chunks*perChunk + perStream
	}
	return n, nil
}
