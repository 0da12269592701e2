// This program writes many values as the harness does, and as encoding/json does, and says where they differ.
//
// `results` comes from a file beside this one that the test writes: the harness lies in another module.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var results func(values ...interface{}) []byte

type (
	Word   string
	Level  int
	Key    struct{ A, B int }
	Letter byte

	ByValue   struct{ N int }
	ByPointer struct{ N int }
	TextKey   struct{ N int }
	TextOnly  int
	TextByPtr struct{ S string }
	Both      struct{ S string }
	Mixed     struct{ S string }
	Zero      struct{ N int }
	ZeroByPtr struct{ N int }
	Empty     struct{}
	Marshals  interface{ MarshalJSON() ([]byte, error) }

	Tags struct {
		Plain   int
		Named   string  `json:"name"`
		Comma   string  `json:",omitempty"`
		Dash    string  `json:"-"`
		Minus   string  `json:"-,"`
		Odd     string  `json:"%$-/ ü<"`
		Quoted  int     `json:",string"`
		QuotedS string  `json:"qs,string"`
		QuotedF float32 `json:",string"`
		QuotedP *bool   `json:",string,omitempty"`
		QuotedM []int   `json:",string"`
		QuotedN json.Number
		hidden  int
		Wild    int `json:"wild,omitempty,string" xml:"w"`
	}
	Omits struct {
		B bool                       `json:",omitempty"`
		I int8                       `json:",omitempty"`
		U uintptr                    `json:",omitempty"`
		F float64                    `json:",omitempty"`
		S []int                      `json:",omitempty"`
		M map[string]int             `json:",omitempty"`
		A [0]int                     `json:",omitempty"`
		P *int                       `json:",omitempty"`
		Z Empty                      `json:",omitempty"`
		T Zero                       `json:",omitzero"`
		Q ZeroByPtr                  `json:",omitzero"`
		R *Zero                      `json:",omitzero"`
		N interface{ IsZero() bool } `json:",omitzero"`
		W time.Time                  `json:",omitzero"`
		E [2]int                     `json:",omitzero"`
		O Tags                       `json:",omitzero,omitempty"`
		V []int                      `json:",omitzero"`
	}
	Inner struct{ A, B, C int }
	Other struct{ B, C, D int }
	Named struct {
		C int `json:"C"`
	}
	hidden struct {
		H int
		B string `json:"b"`
	}
	lower int
	Outer struct {
		Inner
		Other
		Named
	}
	Twice struct {
		One
		Two
	}
	One  struct{ Inner }
	Two  struct{ Inner }
	Deep struct {
		*Inner
		*hidden
		lower
		Word
		A     string
		Other `json:"other"`
	}
	Recursive struct {
		Name string
		Next *Recursive `json:",omitempty"`
		Many []Recursive
		*Inner
	}
	Loop struct {
		*Loop
		N int
	}
	Writers struct {
		V  ByValue
		P  ByPointer
		PP *ByPointer
		VV *ByValue
		S  []ByPointer
		A  [1]ByPointer
		M  map[string]ByPointer
		K  map[TextKey]int
		L  map[Level]string
		W  map[Word]Word
		T  TextByPtr
		TO TextOnly
		B  Both
		X  Mixed
		I  interface{}
		J  Marshals
		E  error
		R  json.RawMessage
		U  *url.URL
		Z  []Zero
	}
)

func (v ByValue) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]int{"v": v.N}) }
func (v *ByPointer) MarshalJSON() ([]byte, error) {
	if v.N%7 == 3 {
		return []byte(" [ 1 , {\"a\" :\ttrue, \"\\u00e9<\": null}, -1.5e+3 ] "), nil
	}
	return []byte(strconv.Itoa(v.N)), nil
}
func (v TextKey) MarshalText() ([]byte, error)    { return []byte(fmt.Sprint("key", v.N)), nil }
func (v TextOnly) MarshalText() ([]byte, error)   { return []byte(fmt.Sprint("<", int(v), ">")), nil }
func (v *TextByPtr) MarshalText() ([]byte, error) { return []byte("ptr " + v.S), nil }
func (v Both) MarshalJSON() ([]byte, error)       { return json.Marshal(v.S + "!") }
func (v Both) MarshalText() ([]byte, error)       { return []byte(v.S), nil }
func (v *Mixed) MarshalJSON() ([]byte, error)     { return json.Marshal(v.S + "?") }
func (v Mixed) MarshalText() ([]byte, error)      { return []byte(v.S), nil }
func (v Zero) IsZero() bool                       { return v.N%2 == 0 }
func (v *ZeroByPtr) IsZero() bool                 { return v.N%2 == 0 }

// Types that `fill` makes random values of. None holds bytes: those are not written as encoding/json does.
var types = []interface{}{
	false, int8(0), int(0), uint64(0), float32(0), float64(0), "", Word(""), Level(0), uintptr(0),
	[]int{}, [3]int16{}, []string{}, [][]float64{}, map[string]int{}, map[int8]string{}, map[Word][]bool{},
	map[TextKey]ByValue{}, map[uint16]*ByPointer{}, (*int)(nil), (**string)(nil), Key{}, &Key{},
	Tags{}, &Tags{}, []Tags{}, Inner{}, Outer{}, &Outer{}, Twice{}, Recursive{}, &Recursive{},
	ByValue{}, ByPointer{}, &ByPointer{}, []ByPointer{}, [2]ByPointer{}, &[2]ByPointer{}, TextOnly(0),
	TextByPtr{}, &TextByPtr{}, Both{}, Mixed{}, &Mixed{}, []Mixed{}, map[string]Mixed{}, Zero{}, []Zero{},
	time.Duration(0), struct {
		A struct{ B struct{ C []Word } }
	}{}, []*Recursive{}, map[string]map[string]Level{},
}

func fixed() []interface{} {
	one, text, yes := 1, "text", true
	loose := &Deep{Inner: &Inner{1, 2, 3}, hidden: &hidden{4, "b"}, lower: 5, Word: "w", A: "outer"}
	now := time.Date(2026, 11, 28, 13, 5, 0, 123456789, time.FixedZone("", 3600))
	huge, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	link, _ := url.Parse("https://example.com/a?b=c&d=<e>")
	numbers := []float64{0, math.Copysign(0, -1), 1, -1.5, 1e20, 1e21, 1e-6, 9.99e-7, 1e-300, 5e-324, math.MaxFloat64,
		0.1, 1 / 3.0, 123456789.125, 1e6, 1e100}
	values := []interface{}{
		nil, true, "", "a\"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u2028\u2029é世🙂", Word("\n"), one, int64(math.MinInt64),
		uint64(math.MaxUint64), numbers, float32(1e-7), float32(0.1), float32(1e21), float32(16777216),
		&one, &text, (*int)(nil), []string(nil), map[string]int(nil), []int{}, map[string]int{}, struct{}{},
		Tags{QuotedP: &yes, QuotedS: "q\"", QuotedF: 1e-9, QuotedN: "12.5", Wild: 3}, Omits{}, &Omits{},
		Omits{T: Zero{1}, Q: ZeroByPtr{1}, R: &Zero{1}, N: &Zero{2}, W: now, E: [2]int{1}, V: []int{}},
		Omits{T: Zero{2}, Q: ZeroByPtr{2}, R: &Zero{2}, N: (*Zero)(nil), B: true, I: 1, U: 1, F: 1, S: []int{0}},
		Outer{}, Twice{}, Deep{}, loose, *loose, Loop{N: 1}, Loop{Loop: &Loop{N: 2}},
		Writers{}, &Writers{}, Writers{R: json.RawMessage(" {\"a\" : [1, 2 ] }\n"), E: errors.New("x"), U: link,
			I: ByPointer{3}, J: &ByPointer{3}, PP: &ByPointer{3}, VV: &ByValue{3}, S: make([]ByPointer, 2),
			M: map[string]ByPointer{"a": {3}}, K: map[TextKey]int{{2}: 1, {1}: 2}, L: map[Level]string{-10: "a", 9: "b"},
			W: map[Word]Word{"b": "1", "a": "2"}, Z: []Zero{{1}}},
		&Writers{A: [1]ByPointer{{3}}, T: TextByPtr{"t"}, X: Mixed{"x"}, J: ByValue{1}},
		now, &now, []time.Time{now.UTC()}, time.Hour, time.Monday, map[time.Month]int{time.May: 5}, huge, *huge,
		[]*big.Int{huge, nil}, big.NewRat(1, 3), new(big.Float).SetFloat64(1.5), netip.MustParseAddr("10.0.0.1"),
		map[netip.Addr]string{netip.MustParseAddr("10.0.0.1"): "a"}, link, *link, json.Number("1e5"), json.Number(""),
		[]json.Number{"0", "-1.5"}, struct {
			N json.Number `json:",string"`
		}{"7"}, []interface{}{1, "a", nil, []interface{}{2.5}, map[string]interface{}{"b": nil}}, errors.New("x"),
		json.RawMessage(nil), json.RawMessage("null"), json.RawMessage(`"\u00e9\/"`), [2]byte{1, 2}, &[2]byte{1, 2},
		map[string]*int{"a": nil, "b": &one}, []**int{}, struct{ P ***int }{},
	}
	deep := interface{}(1)
	for i := 0; i < 60; i++ {
		deep = []interface{}{deep, map[string]interface{}{"d": nil}}
	}
	return append(values, deep)
}

type (
	Panics  struct{}
	Fails   struct{}
	Garbage string
	Node    struct{ Next interface{} }
	Grid    map[string]interface{}
)

func (Panics) MarshalJSON() ([]byte, error)    { panic("no") }
func (Panics) MarshalText() ([]byte, error)    { return []byte("text"), nil }
func (Fails) MarshalText() ([]byte, error)     { return nil, errors.New("no") }
func (v Garbage) MarshalJSON() ([]byte, error) { return []byte(v), nil }

// beyond are values that encoding/json refuses, or writes so that bytes are lost, and what the harness writes.
func beyond() map[string]interface{} {
	node := &Node{}
	node.Next = node
	grid := Grid{}
	grid["self"] = grid
	ring := []interface{}{nil}
	ring[0] = ring
	deep, shallow := interface{}(1), `1`
	for i := 0; i < 300; i++ {
		deep = []interface{}{deep}
	}
	for i := 0; i < 200; i++ {
		shallow = "[" + shallow + "]"
	}
	shared := &Inner{1, 2, 3}
	return map[string]interface{}{
		`"chan int"`:            make(chan int),
		`"func(int) string"`:    func(int) string { return "" },
		`"float64"`:             math.NaN(),
		`[1,"float32"]`:         []float32{1, float32(math.Inf(-1))},
		`"(1-2i)"`:              1 - 2i,
		`"map[main.Key]int"`:    map[Key]int{{}: 1},
		`"map[float64]int"`:     map[float64]int{},
		`{"a":"func()"}`:        map[string]func(){"a": nil},
		`"main.Panics"`:         Panics{},
		`["main.Fails"]`:        []Fails{{}},
		`"map[main.Fails]int"`:  map[Fails]int{{}: 1},
		`"main.Garbage"`:        Garbage(`{"a":}`),
		`["main.Garbage",{}]`:   []interface{}{Garbage(`[1] 2`), Garbage(` {} `)},
		`{"Next":"*main.Node"}`: node,
		`{"self":"main.Grid"}`:  grid,
		`["[]interface {}"]`:    ring,
		`[{"A":1,"B":2,"C":3},{"A":1,"B":2,"C":3}]`: []*Inner{shared, shared},
		`"text é"`:                []byte("text é"),
		`""`:                      []byte{},
		`null`:                    []byte(nil),
		`{"base64":"/wA="}`:       []byte{0xff, 0},
		`{"base64":"/w=="}`:       "\xff",
		`{"B":{"base64":"/w=="}}`: struct{ B json.RawMessage }{json.RawMessage(`{"base64":"/w=="}`)},
		`{"base64":"/wE="}`:       []Letter{0xff, 1},
		strings.Repeat("[", 200) + `"[]interface {}"` + strings.Repeat("]", 200): deepest(deep, 99),
		`["main.Garbage"]`: []Garbage{Garbage(strings.Repeat("[", 200) + strings.Repeat("]", 200))},
		shallow:            json.RawMessage(shallow),
	}
}

// deepest leaves out so many of the outermost slices.
func deepest(value interface{}, but int) interface{} {
	for i := 0; i < but; i++ {
		value = value.([]interface{})[0]
	}
	return value
}

// structs makes values of structs whose fields and tags are random.
func structs(random *rand.Rand) interface{} {
	tags := []string{"", `json:"a"`, `json:"b"`, `json:",omitempty"`, `json:"c,omitempty,string"`, `json:",string"`,
		`json:"-"`, `json:"Field1"`, `json:"z,omitzero"`, `json:"é"`}
	fields := make([]reflect.StructField, random.Intn(6))
	for i := range fields {
		kind := reflect.TypeOf(types[random.Intn(len(types))])
		fields[i] = reflect.StructField{
			Name: "Field" + strconv.Itoa(i), Type: kind, Tag: reflect.StructTag(tags[random.Intn(len(tags))]),
		}
	}
	return reflect.New(reflect.StructOf(fields)).Elem().Interface()
}

func filled(kind reflect.Type, random *rand.Rand) interface{} {
	made := reflect.New(kind).Elem()
	fill(made, random, 4)
	return made.Interface()
}

// fill gives a value, and what it holds, random contents; `depth` bounds recursive types.
func fill(v reflect.Value, random *rand.Rand, depth int) {
	if !v.CanSet() {
		return
	}
	count := random.Intn(depth + 1)
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(random.Intn(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(random.Int63()>>uint(random.Intn(64)) - 1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(random.Uint64() >> uint(random.Intn(64)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(math.Ldexp(random.Float64(), random.Intn(200)-100))
	case reflect.String:
		if v.Type() == reflect.TypeOf(json.Number("")) {
			v.SetString(strconv.Itoa(random.Int()))
			return
		}
		v.SetString(strings.ToValidUTF8(string(rune(random.Intn(0x3000)))+"a<\x00\"\U0001f642"[:random.Intn(8)], "?"))
	case reflect.Ptr:
		if count > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), random, depth-1)
		}
	case reflect.Slice:
		if random.Intn(4) > 0 {
			v.Set(reflect.MakeSlice(v.Type(), count, count))
		}
		fallthrough
	case reflect.Array:
		for i := 0; i < v.Len(); i++ {
			fill(v.Index(i), random, max(0, depth-1))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := 0; i < count; i++ {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, random, depth-1)
			fill(value, random, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			fill(v.Field(i), random, max(0, depth-1))
		}
	}
}

func plain(value interface{}) (string, error) {
	var out bytes.Buffer
	writer := json.NewEncoder(&out)
	writer.SetEscapeHTML(false)
	err := writer.Encode(value)
	return strings.TrimSuffix(out.String(), "\n"), err
}

func main() {
	seed, rounds := time.Now().UnixNano(), 40
	random := rand.New(rand.NewSource(seed))
	values := fixed()
	for i := 0; i < rounds; i++ {
		for _, kind := range types {
			values = append(values, filled(reflect.TypeOf(kind), random))
		}
		shape := reflect.TypeOf(structs(random))
		values = append(values, filled(shape, random), reflect.Zero(shape).Interface())
	}
	compared, differ := 0, 0
	for _, value := range values {
		want, err := plain(value)
		got := string(results(value))
		if !json.Valid([]byte(got)) || !utf8.ValidString(got) {
			differ++
			fmt.Printf("no JSON: %T %s\n", value, got)
		} else if err == nil && got != "["+want+"]" {
			differ++
			fmt.Printf("seed %d: %T\nwant [%s]\ngot  %s\n", seed, value, want, got)
		} else if err == nil {
			compared++
		}
		if differ > 5 {
			os.Exit(1)
		}
	}
	for want, value := range beyond() {
		if got := string(results(value)); got != "["+want+"]" {
			differ++
			fmt.Printf("%T\nwant [%s]\ngot  %s\n", value, want, got)
		}
	}
	for _, large := range []interface{}{make([]int, 1<<20), strings.Repeat("é", 1<<20), make([]byte, 1<<24),
		json.RawMessage("[" + strings.Repeat("0,", 1<<20) + "0]"), strings.Repeat("\xff", 800_000)} {
		if got := string(results(1, large)); got != "null" {
			differ++
			fmt.Printf("%T is not too large: %d\n", large, len(got))
		}
	}
	if got := string(results("a", strings.Repeat("é", 500_000))); len(got) != 1_000_000+8 {
		differ++
		fmt.Println("this is not too large:", len(got))
	}
	fmt.Printf("compared %d of %d\n", compared, len(values))
	if differ > 0 {
		os.Exit(1)
	}
}
