// Package places is described in tests: one declaration of each shape that a catalogue tells apart.
//
// Nothing here is worth calling.
package places

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// MaxLength is the longest geohash.
const MaxLength = 12

// Far is too far for an int.
const Far = 1 << 70

// Kinds of places.
const (
	Town Kind = iota
	hamlet
)

// Default is ready to be asked.
var Default = &Client{name: "default"}

// Shorten is a function in a variable.
var Shorten = func(text string, most int) string { return text[:most] }

// ErrUnknown is to be compared with, not called.
var ErrUnknown = errors.New("unknown place")

// Encode gives the name of a point.
//
// The name has one digit behind each point.
func Encode(lat, lng float64) string { return fmt.Sprintf("%.1f,%.1f", lat, lng) }

// Decode is the inverse of Encode.
func Decode(name string) (Point, error) {
	var p Point
	_, err := fmt.Sscanf(name, "%f,%f", &p.Lat, &p.Lng)
	return p, err
}

// Sum adds.
func Sum[T ~int | ~float64](first T, more ...T) (total T) {
	for _, one := range append(more, first) {
		total += one
	}
	return total
}

// Look looks a value up.
func Look[K comparable, V any](among map[K]V, key K) V { return among[key] }

// Split splits.
func Split(text, by string) []string { return strings.Split(text, by) }

// Wait takes what the island gives, and what has forms of its own.
func Wait(ctx context.Context, from io.Reader, to io.Writer, d time.Duration, at *time.Time, n *big.Int, u url.URL) error {
	return nil
}

// Numbers have bounds.
func Numbers(_ int8, b uint16, c int64, _ uint, data []byte, key [3]byte) (sum int, ok bool) {
	return 0, true
}

// Only an expression can give these.
func Apply(f func(Point) Point, z complex128, s fmt.Stringer) {}

// Nobody can give this.
func Listen(points <-chan Point) {}

// Options may be left out.
func Options(name string, options ...func(*Client)) string { return name }

// Tree refers to itself.
func Tree(nodes Nodes, pair Pair[string, Pair[int, *Node]], any interface{}) Node { return Node{} }

// Point is a place on Earth.
type Point struct {
	Lat    float64 `json:"lat"`
	Lng    float64 `json:"lng,omitempty"`
	secret int
	Skip   string `json:"-"`
	Count  int64  `json:"count,string"`
	meta
	Kind Kind
	Call func()
}

type meta struct {
	Tags map[string][]string `json:"tags"`
	Lat  string
}

// Kind is a kind of place.
type Kind int

// String is its name.
func (k Kind) String() string { return []string{"town", "hamlet"}[k] }

// Node and Nodes refer to each other.
type Node struct {
	Parent *Node
	Below  Nodes
}

type Nodes []Node

// Pair is generic.
type Pair[A, B any] struct {
	First  A
	Second B
}

// Move changes a point.
func (p *Point) Move(by float64) { p.Lat += by }

// Swap is out of reach of a plain expression.
func (p Pair[A, B]) Swap() Pair[B, A] { return Pair[B, A]{p.Second, p.First} }

// Client asks.
type Client struct{ name string }

// NewClient makes one.
func NewClient(name string) *Client { return &Client{name} }

// Ask asks.
func (c *Client) Ask(times int) string { return strings.Repeat(c.name, times) }

func unexported() {}
