package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

// salvaging lists what is whole in a damaged delta, and writes it away.
type salvaging struct {
	app  *app
	path string
	to   string // a directory; empty: nothing is written
	out  string // a file, of the only stream
	json bool   // the list
	w    *bufio.Writer

	header  *cbt.Header
	stream  int // of the row
	row     cbt.Piece
	rows    int // of the stream
	listed  int // streams
	total   map[cbt.PieceKind]int64
	unsure  int64
	image   *audit.OutFile
	mapped  *audit.OutFile
	mapping *bufio.Writer
	end     int64 // of the stream, as far as it is known

	maps, images []*audit.OutFile // of complete streams, which have no names yet
	written      int64            // bytes of these images
}

// salvage reads a delta as far as that is possible.
func (a *app) salvage(ctx context.Context, path string, opt *verifyOptions) error {
	if path == stdinName {
		return fail.Usage("--salvage needs a delta in a file")
	}
	reads := audit.Reading{Audit: a.audit}
	f, err := openFile(path, &reads, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	p := a.Start("verifying", f.Info.Size)
	_, sum, damage := cbt.Verify(ctx, io.NewSectionReader(f, 0, f.Info.Size), cbt.VerifyOptions{Progress: p.Set})
	p.Finish()
	var format *sparse.FormatError
	if damage != nil && !errors.As(damage, &format) {
		return fmt.Errorf("%s: %w", path, damage)
	}
	s := &salvaging{app: a, path: path, to: opt.salvageTo, out: opt.out, json: a.json, w: bufio.NewWriter(a.Stdout), total: map[cbt.PieceKind]int64{}, stream: -1}
	defer s.abort()
	if s.to != "" {
		if err := os.Mkdir(s.to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if h, err := cbt.ReadHeader(io.NewSectionReader(f, 0, f.Info.Size)); err == nil {
		s.header = &h
	}
	if s.out != "" && (s.header == nil || len(s.header.Streams) != 1) {
		return fail.Usage("-o takes the only stream of a delta, and this one has several or its header is lost: --salvage-to DIR")
	}
	err = s.run(ctx, f, sum, damage)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if s.unsure > 0 {
		a.Warnf("%s: %s were found behind a gap, and may be of a delta that the disk itself held (unsure)", text.Printable(path), text.Size(s.unsure))
	}
	if s.header != nil && !allFull(s.header) {
		a.Notef("what is unchanged is in the deltas that this one builds on; it is not filled in")
	}
	a.Notef("%s: %s of data and %s of zeros are whole, %s are lost", text.Printable(path), text.Size(s.total[cbt.PieceData]), text.Size(s.total[cbt.PieceZero]), text.Size(s.total[cbt.PieceLost]))
	if damage != nil {
		return fail.Findings("%s: %w", path, damage)
	}
	return nil
}

func allFull(h *cbt.Header) bool {
	for _, s := range h.Streams {
		if !s.Full {
			return false
		}
	}
	return true
}

func (s *salvaging) run(ctx context.Context, f *file, sum cbt.Summary, damage error) error {
	if s.json {
		head := map[string]any{"delta": s.path, "ok": damage == nil, "header": s.header != nil}
		if damage != nil {
			head["error"] = damage.Error()
		} else {
			head["id"] = sum.ID.String()
		}
		str, err := json.Marshal(head)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.w, "%s, \"streams\": [", text.EscapeJSON(strings.TrimSuffix(string(str), "}")))
	} else {
		fmt.Fprintf(s.w, "%16s %16s  %s\n", "start", "length", "state")
	}
	_, err := cbt.Salvage(ctx, f, f.Info.Size, s.piece)
	if err == nil {
		err = s.endStream()
	}
	if err = errors.Join(err, s.commit()); err != nil {
		return err
	}
	if s.json {
		fmt.Fprintf(s.w, "],\n\"salvaged\": %d, \"zero\": %d, \"unchanged\": %d, \"lost\": %d, \"unsure\": %d }\n",
			s.total[cbt.PieceData], s.total[cbt.PieceZero], s.total[cbt.PieceUnchanged], s.total[cbt.PieceLost], s.unsure)
	}
	return s.w.Flush()
}

// piece takes the next piece, and joins it with the row before if it is alike.
func (s *salvaging) piece(p cbt.Piece) error {
	s.total[p.Kind] += p.Len
	if p.Unsure {
		s.unsure += p.Len
	}
	if p.Stream != s.stream {
		if err := s.beginStream(p.Stream); err != nil {
			return err
		}
	}
	if s.image != nil && p.Kind == cbt.PieceData {
		if _, err := s.image.WriteAt(p.Data, p.Off); err != nil {
			return err
		}
	}
	s.end = max(s.end, p.Off+p.Len)
	if s.row.Len > 0 && s.row.Kind == p.Kind && s.row.Unsure == p.Unsure && s.row.Off+s.row.Len == p.Off {
		s.row.Len += p.Len
		return nil
	}
	err := s.flushRow()
	s.row = p
	s.row.Data = nil
	return err
}

func (s *salvaging) name(stream int) string {
	if s.header == nil {
		return fmt.Sprintf("stream-%d", stream)
	}
	return s.header.Streams[stream].Name
}

func (s *salvaging) beginStream(n int) error {
	if err := s.endStream(); err != nil {
		return err
	}
	s.stream, s.rows, s.end = n, 0, 0
	name := s.name(n)
	if s.json {
		sep := ""
		if s.listed > 0 {
			sep = ","
		}
		str, err := json.Marshal(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.w, "%s\n{ \"name\": %s, ", sep, text.EscapeJSON(string(str)))
		if s.header != nil {
			fmt.Fprintf(s.w, "\"size\": %d, \"full\": %t, ", s.header.Streams[n].Size, s.header.Streams[n].Full)
		}
		s.w.WriteString("\"map\": [")
	} else {
		fmt.Fprintf(s.w, "%s:\n", text.Printable(name))
	}
	s.listed++
	path := s.out
	if s.to != "" {
		path = filepath.Join(s.to, store.ImageName(strings.Replace(name, "/", "-", 1))+".raw")
	}
	if path == "" {
		return nil
	}
	var err error
	if s.image, err = s.app.createNew(path); err != nil {
		return err
	}
	if s.mapped, err = s.app.createNew(path + ".map"); err != nil {
		return err
	}
	s.mapping = bufio.NewWriter(s.mapped)
	_, err = s.mapping.WriteString("[")
	return err
}

func (a *app) createNew(path string) (*audit.OutFile, error) {
	f, err := a.audit.Create(path, false)
	if errors.Is(err, fs.ErrExist) {
		return nil, fail.Usage("%s: exists already, and is not replaced", text.Printable(path))
	}
	return f, err
}

var pieceStates = map[cbt.PieceKind]string{
	cbt.PieceLost: "lost", cbt.PieceData: "data", cbt.PieceZero: "zero", cbt.PieceUnchanged: "unchanged",
}

// flushRow lists what was joined.
func (s *salvaging) flushRow() error {
	p := s.row
	s.row = cbt.Piece{}
	if p.Len == 0 {
		return nil
	}
	sep := ""
	if s.rows > 0 {
		sep = ",\n"
	}
	s.rows++
	there := p.Kind == cbt.PieceData || p.Kind == cbt.PieceZero
	text := fmt.Sprintf(`%s{ "start": %d, "length": %d, "depth": 0, "present": %t, "zero": %t, "data": %t, "compressed": false, "state": %q, "unsure": %t}`,
		sep, p.Off, p.Len, there, p.Kind == cbt.PieceZero, p.Kind == cbt.PieceData, pieceStates[p.Kind], p.Unsure)
	if s.mapping != nil {
		if _, err := s.mapping.WriteString(text); err != nil {
			return err
		}
	}
	if s.json {
		_, err := s.w.WriteString(text)
		return err
	}
	unsure := ""
	if p.Unsure {
		unsure = ", unsure"
	}
	_, err := fmt.Fprintf(s.w, "%16d %16d  %s%s\n", p.Off, p.Len, pieceStates[p.Kind], unsure)
	return err
}

// endStream completes the list and the files of a stream.
func (s *salvaging) endStream() error {
	if s.stream < 0 {
		return nil
	}
	if err := s.flushRow(); err != nil {
		return err
	}
	if s.json {
		s.w.WriteString("] }")
	}
	if s.image == nil {
		return nil
	}
	if s.header != nil {
		s.end = s.header.Streams[s.stream].Size
	}
	s.mapping.WriteString("]\n")
	if err := errors.Join(s.mapping.Flush(), s.image.Truncate(s.end)); err != nil {
		return err
	}
	s.maps, s.images, s.written = append(s.maps, s.mapped), append(s.images, s.image), s.written+s.end
	s.image, s.mapped, s.mapping = nil, nil, nil
	if len(s.images) < salvagedAtOnce && s.written < salvagedBytes {
		return nil
	}
	return s.commit()
}

// Files of so many streams, or of so many bytes, get their names together: to sync
// each by itself takes milliseconds, and there may be 4,096.
const (
	salvagedAtOnce = 256 // two files each
	salvagedBytes  = 64 << 20
)

// commit gives the files of complete streams their names, the maps first: bytes
// without them would pass for whole.
func (s *salvaging) commit() error {
	maps, images := s.maps, s.images
	s.maps, s.images, s.written = nil, nil, 0
	return audit.CommitTogether(maps, images)
}

func (s *salvaging) abort() {
	for _, f := range append(append([]*audit.OutFile{s.image, s.mapped}, s.maps...), s.images...) {
		if f != nil {
			f.Abort()
		}
	}
	s.image, s.mapped, s.mapping = nil, nil, nil
}
