// Package subject has a function for every kind of parameter that a literal may meet.
package subject

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

type (
	Tiny   int8
	Size   uint16
	Half   float32
	Flag   bool
	Name   string
	Phasor complex64
	Words  []string
	Point  struct{ X, Y int }
	Speaks interface{ Say() string }
	Empty  interface{}
	Table  map[string]int
)

const Key = "key"

func Bool(v bool) bool                         { return v }
func String(v string) string                   { return v }
func Int(v int) int                            { return v }
func Int8(v int8) int8                         { return v }
func Int16(v int16) int16                      { return v }
func Int32(v int32) int32                      { return v }
func Int64(v int64) int64                      { return v }
func Uint(v uint) uint                         { return v }
func Uint8(v uint8) uint8                      { return v }
func Uint16(v uint16) uint16                   { return v }
func Uint32(v uint32) uint32                   { return v }
func Uint64(v uint64) uint64                   { return v }
func Uintptr(v uintptr) uintptr                { return v }
func Byte(v byte) byte                         { return v }
func Rune(v rune) rune                         { return v }
func Float32(v float32) float32                { return v }
func Float64(v float64) float64                { return v }
func Complex64(v complex64) complex64          { return v }
func Complex128(v complex128) complex128       { return v }
func NamedInt(v Tiny) Tiny                     { return v }
func NamedUint(v Size) Size                    { return v }
func NamedFloat(v Half) Half                   { return v }
func NamedBool(v Flag) Flag                    { return v }
func NamedString(v Name) Name                  { return v }
func NamedComplex(v Phasor) Phasor             { return v }
func Duration(v time.Duration) time.Duration   { return v }
func Month(v time.Month) time.Month            { return v }
func Any(v interface{}) string                 { return fmt.Sprintf("%T %#v", v, v) }
func NamedAny(v Empty) string                  { return fmt.Sprintf("%T %#v", v, v) }
func Error(v error) error                      { return v }
func Method(v Speaks) bool                     { return v == nil }
func Pointer(v *int) *int                      { return v }
func Slice(v []byte) string                    { return fmt.Sprintf("%#v", v) }
func NamedSlice(v Words) string                { return fmt.Sprintf("%#v", v) }
func Map(v map[string]int) string              { return fmt.Sprintf("%#v", v) }
func Chan(v chan int) bool                     { return v == nil }
func Func(v func()) bool                       { return v == nil }
func Array(v [2]int) [2]int                    { return v }
func Struct(v Point) Point                     { return v }
func Nothing()                                 {}
func Void(v int)                               {}
func Two(a int8, b string) (string, int8)      { return b, a }
func Fails(a, b float32) (float32, error)      { return a / b, errors.New("always") }
func Three(a, b, c int) (int, int, int)        { return a, b, c }
func Integers(v ...int) string                 { return fmt.Sprintf("%#v %d %d", v, len(v), cap(v)) }
func Anything(v ...interface{}) string         { return fmt.Sprintf("%#v %d %d", v, len(v), cap(v)) }
func Mixed(format string, v ...Tiny) string    { return fmt.Sprintf("%q %#v", format, v) }
func Strings(v ...string) []string             { return v }
func Nested(v ...[]int) string                 { return fmt.Sprintf("%#v", v) }
func Lookup(t Table) int                       { return t[Key] }
func NewPoint(x, y int) Point                  { return Point{x, y} }
func (p Point) Sum() int                       { return p.X + p.Y }
func (p Point) Forget()                        {}
func (p Point) String() string                 { return fmt.Sprintf("<%d,%d>", p.X, p.Y) }
func (p Point) Move(dx, dy int) (Point, error) { return Point{p.X + dx, p.Y + dy}, nil }
func Panics(v int) int                         { panic(v) }

var Variable = func(v int) int { return 2 * v }

var Value = 5

// Rest tells what standard input holds for the function.
func Rest() string {
	rest, err := io.ReadAll(os.Stdin)
	return fmt.Sprintf("%q %v", rest, err)
}

func Endless(n int) int { return 1 + Endless(n+1) }
