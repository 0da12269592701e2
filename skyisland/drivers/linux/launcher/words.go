package main

import "unsafe"

// A word is a string of C: bytes up to a zero.

// c is a word of this program's text, which must have its zero.
func c(text string) *byte { return unsafe.StringData(text) }

func word(word *byte) uintptr { return uintptr(unsafe.Pointer(word)) }

func at[T any](thing *T) uintptr { return uintptr(unsafe.Pointer(thing)) }

func after(word *byte, count int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(word), count)) }

func size(word *byte) (count int) {
	for *after(word, count) != 0 {
		count++
	}
	return count
}

// decimal reads the digits at the beginning of a word, and returns the rest.
func decimal(word *byte) (value uintptr, rest *byte) {
	for ; *word >= '0' && *word <= '9'; word = after(word, 1) {
		value = 10*value + uintptr(*word-'0')
	}
	return value, word
}

// list is an argv or an environment: behind its words is nil.
type list struct {
	words [256]*byte
	count int
}

func (l *list) clear() { l.count, l.words[0] = 0, nil }

func (l *list) add(word *byte) bool {
	if l.count == len(l.words)-1 {
		return false
	}
	l.words[l.count], l.words[l.count+1] = word, nil
	l.count++
	return true
}

// store keeps words that are put together, until it is cleared.
type store struct {
	text   [1 << 15]byte
	length int
}

func (s *store) clear() { s.length = 0 }

// join keeps the first count bytes of a word with a text behind them; nil if there is no room.
func (s *store) join(word *byte, count int, text string) *byte {
	if s.length+count+len(text)+1 > len(s.text) {
		return nil
	}
	kept := s.length
	s.length += copy(s.text[s.length:], unsafe.Slice(word, count))
	s.length += copy(s.text[s.length:], text)
	s.text[s.length] = 0
	s.length++
	return &s.text[kept]
}

// line is a message that is put together: an answer, or a record for the status pipe. What is too much is
// left out.
type line struct {
	text   [4096]byte
	length int
}

func (l *line) clear() { l.length = 0 }

func (l *line) byte(value byte) {
	if l.length < len(l.text) {
		l.text[l.length] = value
		l.length++
	}
}

func (l *line) word(word *byte) {
	if word != nil {
		l.string(unsafe.String(word, size(word)))
	}
}

func (l *line) string(text string) {
	for i := 0; i < len(text); i++ {
		l.byte(text[i])
	}
}

func (l *line) number(value uintptr) {
	if value >= 10 {
		l.number(value / 10)
	}
	l.byte('0' + byte(value%10))
}

// failure is what went wrong: `!2 mount /a`.
func (l *line) failure() {
	l.byte('!')
	l.number(uintptr(failed.errno))
	l.byte(' ')
	l.string(failed.what)
	if failed.whom != nil {
		l.byte(' ')
		l.word(failed.whom)
	}
}
