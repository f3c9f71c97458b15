package imagelock

import (
	"encoding/json"
	"path/filepath"
	"strings"
)

// A Machine is a QEMU process that has an image open, as far as its command
// line tells.
type Machine struct {
	Domain string // libvirt's name for it; empty: it is not libvirt's
	Device string // what its monitor calls the image; empty: not known
	Tool   string // it is no machine but this program, which has no such monitor
}

// node is a part of QEMU's graph of block devices: -blockdev.
type node struct {
	name, file, filename string // file is the name of the node below
}

// machineOf reads a command line. same says whether a path, relative to the
// process's working directory, is the image.
func machineOf(args []string, same func(path string) bool) (m Machine) {
	var nodes []node
	name, ofLibvirt := "", false
	for i := 1; i+1 < len(args); i++ {
		flag, value := strings.TrimPrefix(args[i], "-"), args[i+1] // QEMU takes --name too
		switch strings.TrimPrefix(flag, "-") {
		case "name":
			opts := options(value, "guest")
			name = opts["guest"]
		case "chardev":
			ofLibvirt = ofLibvirt || options(value, "backend")["id"] == "charmonitor"
		case "drive":
			opts := options(value, "file")
			file := opts["file"]
			if file == "" {
				file = opts["file.filename"]
			}
			if file != "" && same(file) {
				m.Device = opts["id"]
				if m.Device == "" {
					m.Device = opts["node-name"]
				}
			}
		case "blockdev":
			nodes = append(nodes, nodeOf(value))
		}
	}
	for _, below := range nodes {
		if below.filename == "" || !same(below.filename) {
			continue
		}
		m.Device = ""
		if below.file == fileInside {
			m.Device = below.name
		}
		for _, n := range nodes {
			if n.file != "" && n.file == below.name {
				m.Device = n.name
			}
		}
	}
	if ofLibvirt {
		m.Domain = name
	}
	return m
}

// fileInside stands for the file of a node that describes it itself.
const fileInside = "."

func nodeOf(value string) (n node) {
	if !strings.HasPrefix(strings.TrimSpace(value), "{") {
		opts := options(value, "driver")
		n = node{opts["node-name"], opts["file"], opts["filename"]}
		if inside := opts["file.filename"]; inside != "" {
			n.file, n.filename = fileInside, inside
		}
		return n
	}
	var d struct {
		Name     string `json:"node-name"`
		Filename string
		File     json.RawMessage
	}
	if json.Unmarshal([]byte(value), &d) != nil {
		return n
	}
	n = node{name: d.Name, filename: d.Filename}
	var inside struct{ Filename string }
	if json.Unmarshal(d.File, &n.file) != nil && json.Unmarshal(d.File, &inside) == nil && inside.Filename != "" {
		n.file, n.filename = fileInside, inside.Filename
	}
	return n
}

// options takes QEMU's a=b,c=d apart, where a comma in a value is doubled. A
// first part without = is the value of first.
func options(text, first string) map[string]string {
	all := map[string]string{}
	for i := 0; text != ""; i++ {
		var part strings.Builder
		for text != "" {
			at := strings.IndexByte(text, ',')
			if at < 0 {
				part.WriteString(text)
				text = ""
				break
			}
			part.WriteString(text[:at])
			text = text[at+1:]
			if !strings.HasPrefix(text, ",") {
				break
			}
			part.WriteByte(',')
			text = text[1:]
		}
		key, value, ok := strings.Cut(part.String(), "=")
		if !ok && i == 0 {
			key, value = first, key
		}
		all[key] = value
	}
	return all
}

// toolOf is the name of a program of QEMU that is no machine, else empty.
func toolOf(program string) string {
	switch name := filepath.Base(program); name {
	case "qemu-nbd", "qemu-io", "qemu-img", "qemu-storage-daemon":
		return name
	}
	return ""
}

// isQEMU goes by the name of the program.
func isQEMU(program string) bool {
	name := filepath.Base(program)
	return strings.HasPrefix(name, "qemu") || name == "kvm"
}
