// Package textkit reads text from standard input and arguments.
package textkit

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Words counts the words on standard input.
func Words() int {
	words := bufio.NewScanner(os.Stdin)
	words.Split(bufio.ScanWords)
	count := 0
	for words.Scan() {
		count++
	}
	return count
}

// Number parses a number, or returns an error.
func Number(text string) (int, error) {
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("textkit: %w", err)
	}
	return number, nil
}

// Join joins words with a separator. A call of it is compiled as an expression: a list is not a literal.
func Join(words []string, separator string) string {
	return strings.Join(words, separator)
}

// Print writes a line and returns nothing.
func Print(line string) {
	fmt.Println(line)
}

// Text is a string with methods, for calls in a chain: New("x").Repeat(3).Len().
type Text struct{ text string }

// New makes a Text.
func New(text string) Text { return Text{text} }

// Repeat returns the text, repeated.
func (t Text) Repeat(times int) Text { return Text{strings.Repeat(t.text, times)} }

// Len returns its length in bytes.
func (t Text) Len() int { return len(t.text) }

// String returns the text.
func (t Text) String() string { return t.text }

// Largest returns the largest of its numbers. It is generic, so a call is compiled with its arguments.
func Largest[N int | float64](first N, rest ...N) N {
	for _, number := range rest {
		first = max(first, number)
	}
	return first
}
