//go:build !cbtlive

package hostlvm

import (
	"errors"
	"strings"
	"testing"

	"cbt/internal/dm"
)

func TestCheckStatus(t *testing.T) {
	rw := func(used, total uint64) dm.PoolStatus {
		return dm.PoolStatus{TransactionID: 1, MetadataUsed: used, MetadataTotal: total, Mode: "rw"}
	}
	for _, c := range []struct {
		status   dm.PoolStatus
		err      string
		warnings int
	}{
		{rw(800, 1000), "", 0},
		{rw(801, 1000), "", 1},
		{rw(900, 1000), "", 1},
		{rw(901, 1000), "90.1 % of the pool's metadata are in use (901 of 1000 blocks)", 0},
		{rw(0, 0), "no metadata", 0},
		{dm.PoolStatus{Failed: true}, "has failed", 0},
		{dm.PoolStatus{MetadataTotal: 10, Mode: "ro"}, "read-only", 0},
		{dm.PoolStatus{MetadataTotal: 10, Mode: "ro", NeedsCheck: true}, "needs checking", 0},
		{dm.PoolStatus{MetadataTotal: 10, Mode: "rw", NeedsCheck: true}, "needs checking", 0},
		{dm.PoolStatus{MetadataTotal: 10, Mode: "out_of_data_space", DataUsed: 7, DataTotal: 7}, "", 1},
		{dm.PoolStatus{MetadataTotal: 10, MetadataUsed: 9, Mode: "out_of_data_space", DataUsed: 7, DataTotal: 7}, "", 2},
		{dm.PoolStatus{MetadataTotal: 10, Mode: "out_of_data_space", NeedsCheck: true}, "needs checking", 0},
	} {
		warnings, err := checkStatus(c.status)
		switch {
		case c.err == "" && err != nil, c.err != "" && (!errors.Is(err, ErrUnhealthy) || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%+v: %v", c.status, err)
		case len(warnings) != c.warnings:
			t.Errorf("%+v: warnings %q", c.status, warnings)
		}
	}
}

func TestTransactionError(t *testing.T) {
	for _, c := range []struct {
		kernel, text uint64
		messages     bool
		want         string
	}{
		{5, 5, false, ""},
		{5, 5, true, ""},
		{5, 6, true, "an LVM command has not finished: transaction 5 in use, 6 in the volume group's metadata; if none runs, activating the pool again completes it"},
		{5, 6, false, "transaction 5 in use, 6 in the volume group's metadata"},
		{6, 5, true, "transaction 6 in use, 5 in the volume group's metadata"},
	} {
		err := checkTransaction(dm.PoolStatus{TransactionID: c.kernel}, PoolRef{TransactionID: c.text, Messages: c.messages})
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%d, %d: %v", c.kernel, c.text, err)
		}
		if unfinished := strings.Contains(c.want, "not finished"); errors.Is(err, ErrBusy) != unfinished || errors.Is(err, ErrUnhealthy) != (err != nil && !unfinished) {
			t.Errorf("%d, %d: %v is of another kind", c.kernel, c.text, err)
		}
	}
}
