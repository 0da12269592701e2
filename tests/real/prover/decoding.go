// Package prover holds the harness's own JSON against encoding/json, on types and texts made by chance.
package prover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type (
	Tiny    int8
	Wide    uint64
	Half    float32
	Flag    bool
	Name    string
	Words   []string
	Grid    [2][3]int
	Level   int // reads text
	Loud    string
	Twofold struct{ Seen string } // reads JSON and text
	hidden  struct{ Deep, Both int }
	Base    struct {
		ID    int
		Both  int
		Label string
	}
	Other struct {
		Both  int `json:"Both"`
		Extra *Base
	}
	Diamond struct {
		Left
		Right
	}
	Left  struct{ Base }
	Right struct{ Base }
	Mixed struct {
		*Base
		Other  `json:"other"`
		hidden //nolint:unused // its fields are promoted
		Name
		Text   string `json:"text,omitempty"`
		Count  int64  `json:"count,string"`
		Ratio  *Half  `json:",string"`
		Quoted string `json:"quoted,string"`
		On     *bool  `json:"on,string"`
		Skip   int    `json:"-"`
		Dash   int    `json:"-,"`
		Odd    int    `json:"a b/c"`
		Any    any    `json:"any"`
		Loop   *Mixed `json:"loop"`
		Level  Level  `json:"level"`
		Levels []*Level
		Ÿ      int
		K      int // U+212A folds to it
		un     int
	}
	Outer struct {
		*hidden
		Base
		Other
	}
)

func (l *Level) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("no level")
	}
	*l = Level(len(text))
	return nil
}

func (l *Loud) UnmarshalJSON(text []byte) error {
	if bytes.Contains(text, []byte("7")) {
		return errors.New("never seven")
	}
	*l = Loud(bytes.ToUpper(text))
	return nil
}

func (t *Twofold) UnmarshalJSON(text []byte) error { t.Seen = "JSON " + string(text); return nil }
func (t *Twofold) UnmarshalText(text []byte) error { t.Seen = "text " + string(text); return nil }

func of[T any]() reflect.Type { return reflect.TypeOf((*T)(nil)).Elem() }

var named = []reflect.Type{
	of[Tiny](), of[Wide](), of[Half](), of[Flag](), of[Name](), of[Words](), of[Grid](), of[Level](), of[Loud](),
	of[Twofold](), of[Base](), of[Other](), of[Diamond](), of[Mixed](), of[Outer](), of[time.Time](), of[big.Int](),
	of[netip.Addr](), of[json.Number](), of[json.RawMessage](), of[time.Month](), of[any](), of[map[Level]int](),
	of[map[Twofold]int](), of[map[Tiny]string](), of[map[bool]int](), of[**Mixed](), of[func()](), of[chan int](),
	of[complex128](), of[struct{}](), of[fmt.Stringer](),
}

var plain = []reflect.Type{
	of[bool](), of[string](), of[int](), of[int8](), of[int16](), of[int32](), of[int64](), of[uint](), of[uint16](),
	of[uint32](), of[uint64](), of[uintptr](), of[float32](), of[float64](), of[any](),
}

// quirk is what encoding/json treats in its own way inside the quotes of the option `string`: 05 is a number there,
// and half of a surrogate pair is an error.
var quirk = regexp.MustCompile(`"-?0[0-9]|\\\\ud|:"null"`)

// Decoding decodes texts made by chance into types made by chance, with `decode` and with encoding/json, until it
// has done `rounds`. It returns how many both accept, and says which they do not treat alike.
func Decoding(decode func(text string, to reflect.Value) string, seed int64, rounds int, to io.Writer) (accepted int) {
	m := maker{rand.New(rand.NewSource(seed))}
	for i := 0; i < rounds; i++ {
		t := m.kind(3)
		text := m.json(t, 4)
		if m.Intn(8) == 0 {
			text = m.damaged(text)
		}
		own, others := reflect.New(t), reflect.New(t)
		wrong := decode(text, own.Elem())
		if strings.Contains(wrong, "is there twice") || quirk.MatchString(text) {
			continue
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(others.Interface())
		if err == nil {
			if _, more := decoder.Token(); more != io.EOF {
				err = errors.New("more")
			}
		}
		switch {
		case (wrong == "") != (err == nil):
			fmt.Fprintf(to, "%v of %q: %q, encoding/json: %v\n", t, text, wrong, err)
		case err == nil && !reflect.DeepEqual(own.Interface(), others.Interface()):
			fmt.Fprintf(to, "%v of %q: %#v, encoding/json: %#v\n", t, text, own.Elem(), others.Elem())
		case err == nil:
			accepted++
		}
	}
	return accepted
}

type maker struct{ *rand.Rand }

// kind makes a type.
func (m maker) kind(depth int) reflect.Type {
	choice := m.Intn(12)
	if depth == 0 {
		choice = m.Intn(2)
	}
	switch choice {
	case 0, 1, 2:
		return plain[m.Intn(len(plain))]
	case 3, 4, 5, 6:
		return named[m.Intn(len(named))]
	case 7:
		element := m.kind(depth - 1)
		if element.Kind() == reflect.Uint8 {
			return element
		}
		return reflect.SliceOf(element)
	case 8:
		return reflect.ArrayOf(m.Intn(4), m.kind(depth-1))
	case 9:
		return reflect.PointerTo(m.kind(depth - 1))
	case 10:
		keys := []reflect.Type{of[string](), of[int8](), of[uint64](), of[Name](), of[Level](), of[netip.Addr](), of[float64]()}
		return reflect.MapOf(keys[m.Intn(len(keys))], m.kind(depth-1))
	}
	var fields []reflect.StructField
	for i := m.Intn(4); i >= 0; i-- {
		tags := []string{"", `json:"x%d"`, `json:"x%d,string"`, `json:",string"`, `json:"-"`, `json:"Fie%d"`, `json:"ÄöÜ%d"`}
		tag := tags[m.Intn(len(tags))]
		if strings.Contains(tag, "%") {
			tag = fmt.Sprintf(tag, i)
		}
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("Field%d", i), Type: m.kind(depth - 1), Tag: reflect.StructTag(tag),
		})
	}
	return reflect.StructOf(fields)
}

var texts = []string{
	"null", "true", "false", "0", "-1", "7", "127", "128", "-129", "65536", "1.5", "1e3", "-0", "1E400", "3.5e38",
	"9007199254740993", "18446744073709551615", "18446744073709551616", "0.1", `""`, `"a"`, `"7"`, `"é\u00e9\n\/"`,
	`"\ud83d\ude00"`, `"\ud83d"`, `"\ude00x"`, `"\ud83d\u0041"`, "\"\xff\"", `"2020-01-02T03:04:05Z"`, `"::1"`, `"-5"`, `"1.5"`, `"true"`,
	`"null"`, `"\"x\""`, `" 1"`, `"1 "`, `"[]"`, "[]", "[1]", "{}", `{"a":1}`, `[[],[{}]]`, `{"a":{"b":[null,"x",1.5,true]}}`, " [ 1 , 2 ] ",
}

// json makes a text that fits the type more often than not.
func (m maker) json(t reflect.Type, depth int) string {
	if depth == 0 || m.Intn(10) == 0 {
		return texts[m.Intn(len(texts))]
	}
	switch kind := t.Kind(); kind {
	case reflect.Pointer:
		return m.json(t.Elem(), depth)
	case reflect.Bool:
		return []string{"true", "false"}[m.Intn(2)]
	case reflect.String:
		return strconv.Quote(strings.Repeat("ab", m.Intn(3)))
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(m.NormFloat64()*100, 'g', -1, 64)
	case reflect.Slice, reflect.Array:
		var items []string
		for i := m.Intn(4); i > 0; i-- {
			items = append(items, m.json(t.Elem(), depth-1))
		}
		return "[" + strings.Join(items, []string{",", " , ", ",\n"}[m.Intn(3)]) + "]"
	case reflect.Map:
		var items []string
		for i := m.Intn(4); i > 0; i-- {
			key := []string{"a", "1", "-1", "300", "::1", "x" + strconv.Itoa(i), `\u0061b`, ""}[m.Intn(8)]
			items = append(items, `"`+key+`":`+m.json(t.Elem(), depth-1))
		}
		return "{" + strings.Join(items, ",") + "}"
	case reflect.Struct:
		return m.object(t, depth)
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.Complex128:
		return texts[m.Intn(len(texts))]
	}
	return strconv.FormatInt(m.Int63n(400)-100, 10)
}

func (m maker) object(t reflect.Type, depth int) string {
	var items []string
	for _, f := range reflect.VisibleFields(t) {
		if m.Intn(3) == 0 || f.Anonymous && m.Intn(4) > 0 {
			continue
		}
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		name := f.Name
		if tag != "" && m.Intn(8) > 0 {
			name = tag
		}
		switch m.Intn(8) {
		case 0:
			name = strings.ToLower(name)
		case 1:
			name = strings.ToUpper(name)
		case 2:
			name = strings.ReplaceAll(name, "K", "\u212a")
		}
		value := m.json(f.Type, depth-1)
		if options == "string" && m.Intn(6) > 0 {
			value = strconv.Quote(value)
		}
		items = append(items, strconv.Quote(name)+":"+value)
	}
	m.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return "{" + strings.Join(items, ",") + "}"
}

// damaged changes a text in one place.
func (m maker) damaged(text string) string {
	at := m.Intn(len(text) + 1)
	with := []string{"", ",", "]", "}", "[", `"`, "\\", "0", "\x00", "\t", "é", "e", "-", ".", "nul", "\n"}[m.Intn(16)]
	end := min(len(text), at+m.Intn(3))
	return text[:at] + with + text[end:]
}
