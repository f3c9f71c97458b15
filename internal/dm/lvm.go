package dm

import "strings"

// Layers that LVM stacks under or beside a logical volume: what follows the
// volume's own id in the UUID of a device (LVM2 lib/activate/dev_manager.c).
const (
	LayerNone = ""      // the volume as users see it
	LayerPool = "tpool" // the thin-pool target
	LayerCOW  = "cow"   // a thick snapshot's exception store
	LayerReal = "real"  // an origin below its snapshots
	LayerMeta = "tmeta" // a thin pool's metadata
	LayerData = "tdata" // a thin pool's data
)

// lvmPrefix begins the UUIDs of LVM's devices; two ids of 32 characters follow.
const lvmPrefix = "LVM-"

// LVMUUID is the device-mapper UUID of a layer of a logical volume. The ids of
// group and volume may have LVM's dashes.
func LVMUUID(vg, lv, layer string) string {
	uuid := lvmPrefix + strings.ReplaceAll(vg, "-", "") + strings.ReplaceAll(lv, "-", "")
	if layer != LayerNone {
		uuid += "-" + layer
	}
	return uuid
}

// SplitLVMUUID takes the UUID of a device apart into the ids of group and
// volume, without dashes, and the layer. It is not ok if LVM did not make it.
func SplitLVMUUID(uuid string) (vg, lv, layer string, ok bool) {
	const id = 32
	rest, ok := strings.CutPrefix(uuid, lvmPrefix)
	if !ok || len(rest) < 2*id {
		return "", "", "", false
	}
	vg, lv, layer = rest[:id], rest[id:2*id], rest[2*id:]
	if layer != "" {
		if layer, ok = strings.CutPrefix(layer, "-"); !ok {
			return "", "", "", false
		}
	}
	return vg, lv, layer, !strings.Contains(vg+lv, "-")
}
