package cli

import (
	"encoding/json"
	"io"

	"cbt/internal/text"
)

// writeJSON prints v indented. encoding/json leaves some control characters
// as they are; JSON has them only inside strings, so they can be escaped in
// its output.
func writeJSON(w io.Writer, v any) error {
	str, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text.EscapeJSON(string(str))+"\n")
	return err
}
