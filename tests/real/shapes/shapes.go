// Package shapes has a function for each kind of parameter that JSON may become.
package shapes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"sort"
	"strings"
	"time"
)

type (
	Point struct {
		Lat  float64 `json:"lat"`
		Lon  float64 `json:"lon"`
		Name string  `json:"name,omitempty"`
	}
	Level                     int
	Speaker                   interface{ Speak() string }
	Pair[K comparable, V any] struct {
		Key   K
		Value V
	}
)

func (l *Level) UnmarshalText(text []byte) error {
	for i, name := range []string{"low", "high"} {
		if string(text) == name {
			*l = Level(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no level", text)
}

func Middle(a, b Point) Point  { return Point{Lat: (a.Lat + b.Lat) / 2, Lon: (a.Lon + b.Lon) / 2} }
func Show(v any) string        { return fmt.Sprintf("%T %v", v, v) }
func Track(points []Point) int { return len(points) }
func Names(points map[string]*Point) []string {
	var names []string
	for name := range points {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
func Wait(d time.Duration) string { return d.String() }
func Year(at time.Time) int       { return at.Year() }
func Reverse(data []byte) []byte {
	for i, j := 0, len(data)-1; i < j; i, j = i+1, j-1 {
		data[i], data[j] = data[j], data[i]
	}
	return data
}
func Count(r io.Reader) (int, error)        { data, err := io.ReadAll(r); return len(data), err }
func Seek(r io.ReadSeeker) (int64, error)   { return r.Seek(-1, io.SeekEnd) }
func Render(w io.Writer, name string) error { _, err := fmt.Fprintf(w, "hello %s\n", name); return err }
func Fill(buffer *bytes.Buffer, n int)      { buffer.WriteString(strings.Repeat("x", n)) }
func Left(ctx context.Context, name string) bool {
	until, ok := ctx.Deadline()
	return ok && ctx.Err() == nil && name != "" && time.Until(until) > 0
}
func Stop(ctx context.Context) string {
	<-ctx.Done()
	return fmt.Sprint(ctx.Err(), " ", errors.Is(ctx.Err(), context.DeadlineExceeded))
}
func Join(separator string, words ...string) string            { return strings.Join(words, separator) }
func Wrap(err error, message string) error                     { return fmt.Errorf("%s: %w", message, err) }
func Say(s Speaker) string                                     { return s.Speak() }
func Each(f func(int) int) int                                 { return f(1) }
func Set(l Level) int                                          { return int(l) }
func Big(n *big.Int) string                                    { return n.String() }
func Swap[K comparable, V comparable](p Pair[K, V]) Pair[V, K] { return Pair[V, K]{p.Value, p.Key} }
func Largest[T int | float64](values ...T) (most T) {
	for _, v := range values {
		most = max(most, v)
	}
	return most
}
func Half(n int) (int, error) {
	fmt.Println("half of", n)
	switch {
	case n == 13:
		panic("unlucky")
	case n == 99:
		os.Exit(3)
	case n%2 == 1:
		return 0, errors.New("odd")
	}
	return n / 2, nil
}
