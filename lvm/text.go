package lvm

import "strings"

// Limits of a text, besides maxText for its length. LVM has none; its own texts are five sections
// deep.
const (
	maxDepth = 16
	maxItems = 1 << 20 // items and values together
)

// ValueKind tells which field of a Value is set.
type ValueKind uint8

const (
	Int ValueKind = iota + 1
	Float
	String
	List
)

// Value is a value of the text. The elements of a List are not lists themselves.
type Value struct {
	Kind  ValueKind
	Int   int64
	Float float64
	Text  string
	List  []Value
	Pos   Pos
}

// Item is "key = value" or "key { ... }".
type Item struct {
	Key     string
	Pos     Pos
	Section *Section // nil for a value
	Value   Value
}

// Section is a section of the configuration tree: the part between braces, or the whole text. No
// two items have the same key.
type Section struct {
	Items []Item
	Pos   Pos
}

// ParseText parses the text of a group, as stored in a metadata area or in a backup file. A NUL
// ends it. The error is a *sparse.FormatError with line and column. If several items have the same
// key, LVM takes the first. ParseText refuses them, because LVM never writes them.
//
//	file    := item* (end or NUL)
//	item    := key '{' item* '}' | key '=' value
//	key     := identifier | "quoted" | 'quoted'
//	value   := scalar | '[' (scalar ','?)* ']'
//	scalar  := integer | float | "string" | 'string' | word
func ParseText(text []byte) (*Section, error) {
	if len(text) > maxText {
		return nil, textError(Pos{1, 1}, nil, "%d bytes are more than the limit of %d", len(text), maxText)
	}
	p := parser{lexer: lexer{src: text, line: 1}}
	root, err := p.section(0)
	if err != nil {
		return nil, err
	}
	if p.peek() == '}' {
		return nil, textError(p.pos(), nil, "a } without its {")
	}
	return root, nil
}

type parser struct {
	lexer
	items int
}

// count counts an item and limits how many a text may have.
func (p *parser) count(at Pos) error {
	if p.items++; p.items > maxItems {
		return textError(at, nil, "more than %d items", maxItems)
	}
	return nil
}

// section parses items up to a } or the end, which it does not consume.
func (p *parser) section(depth int) (*Section, error) {
	s := &Section{Pos: p.pos()}
	if depth > maxDepth {
		return nil, textError(s.Pos, nil, "sections more than %d deep", maxDepth)
	}
	for {
		if c := p.peek(); c == 0 || c == '}' {
			return s, s.unique()
		}
		item, err := p.item(depth)
		if err != nil {
			return nil, err
		}
		s.Items = append(s.Items, item)
	}
}

func (p *parser) item(depth int) (Item, error) {
	p.peek()
	it := Item{Pos: p.pos()}
	var err error
	if err = p.count(it.Pos); err != nil {
		return it, err
	}
	if it.Key, err = p.key(); err != nil {
		return it, err
	}
	p.peek()
	open := p.pos()
	switch {
	case p.take('{'):
		if it.Section, err = p.section(depth + 1); err != nil {
			return it, err
		}
		if !p.take('}') {
			return it, textError(open, it.Key, "a section that does not end")
		}
	case p.take('='):
		it.Value, err = p.value()
	default:
		err = textError(p.pos(), nil, "neither = nor { after %q", it.Key)
	}
	return it, err
}

func (p *parser) value() (Value, error) {
	c := p.peek()
	at := p.pos()
	if c != '[' {
		return p.scalar(false)
	}
	p.at++
	v := Value{Kind: List, Pos: at}
	for !p.take(']') {
		if p.peek() == 0 {
			return v, textError(at, nil, "a list that does not end")
		}
		e, err := p.scalar(true)
		if err != nil {
			return v, err
		}
		v.List = append(v.List, e)
		p.take(',')
	}
	return v, nil
}

func (p *parser) scalar(inList bool) (Value, error) {
	c := p.peek()
	at := p.pos()
	if err := p.count(at); err != nil {
		return Value{}, err
	}
	switch {
	case c == '"' || c == '\'':
		s, err := p.quoted(c)
		return Value{Kind: String, Text: s, Pos: at}, err
	case c >= '0' && c <= '9' || strings.IndexByte("+-.", c) >= 0:
		return p.number()
	case c == 0 || inList || strings.IndexByte("#={}[],", c) >= 0:
		return Value{}, textError(at, nil, "a value is missing")
	}
	return Value{Kind: String, Text: p.word(), Pos: at}, nil
}

// unique refuses two items with the same key.
func (s *Section) unique() error {
	const few = 16
	if len(s.Items) <= few {
		for i := range s.Items {
			for j := range i {
				if s.Items[i].Key == s.Items[j].Key {
					return textError(s.Items[i].Pos, s.Items[i].Key, "a second item with this key")
				}
			}
		}
		return nil
	}
	seen := make(map[string]bool, len(s.Items))
	for _, it := range s.Items {
		if seen[it.Key] {
			return textError(it.Pos, it.Key, "a second item with this key")
		}
		seen[it.Key] = true
	}
	return nil
}

// item returns the item with that key, or nil if there is none.
func (s *Section) item(key string) *Item {
	for i := range s.Items {
		if s.Items[i].Key == key {
			return &s.Items[i]
		}
	}
	return nil
}

// fields reads values by key and keeps the first error.
type fields struct {
	s   *Section
	err error
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fields) value(key string, kind ValueKind, name string, required bool) (Value, bool) {
	it := f.s.item(key)
	switch {
	case it == nil && required:
		f.fail(textError(f.s.Pos, nil, "%s is missing", key))
	case it == nil:
	case it.Section != nil || it.Value.Kind != kind:
		f.fail(textError(it.Pos, nil, "%s is not %s", key, name))
	default:
		return it.Value, true
	}
	return Value{}, false
}

// integer returns an integer in low..high.
func (f *fields) integer(key string, low, high int64, required bool) int64 {
	v, ok := f.value(key, Int, "an integer", required)
	if ok && (v.Int < low || v.Int > high) {
		f.fail(textError(v.Pos, v.Int, "%s is not in %d..%d", key, low, high))
		return 0
	}
	return v.Int
}

func (f *fields) text(key string, required bool) string {
	v, _ := f.value(key, String, "a string", required)
	return v.Text
}

// texts returns a list of strings. As in LVM, a single string is a list of one.
func (f *fields) texts(key string, required bool) []string {
	if it := f.s.item(key); it != nil && it.Section == nil && it.Value.Kind == String {
		return []string{it.Value.Text}
	}
	v, ok := f.value(key, List, "a list", required)
	if !ok {
		return nil
	}
	all := make([]string, 0, len(v.List))
	for _, e := range v.List {
		if e.Kind != String {
			f.fail(textError(e.Pos, nil, "%s has an element that is not a string", key))
			return nil
		}
		all = append(all, e.Text)
	}
	return all
}

// section returns a sub-section, or nil if there is none.
func (f *fields) section(key string, required bool) *Section {
	it := f.s.item(key)
	switch {
	case it == nil && required:
		f.fail(textError(f.s.Pos, nil, "%s is missing", key))
	case it == nil:
	case it.Section == nil:
		f.fail(textError(it.Pos, nil, "%s is not a section", key))
	default:
		return it.Section
	}
	return nil
}

// has reports whether there is an item with the key.
func (f *fields) has(key string) bool { return f.s.item(key) != nil }
