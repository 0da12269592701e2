package main

import "unsafe"

// A word is a C string: bytes that end with a zero byte. It is passed as a pointer to its first byte.

// cstr is a literal of this program as a word. The literal must end with \x00.
func cstr(literal string) *byte { return unsafe.StringData(literal) }

// word is the address of a word, as an argument of a system call.
func word(word *byte) uintptr { return uintptr(unsafe.Pointer(word)) }

// at is the address of a variable, as an argument of a system call.
func at[T any](variable *T) uintptr { return uintptr(unsafe.Pointer(variable)) }

func after(word *byte, count int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(word), count)) }

// size is the length of a word without its zero byte.
func size(word *byte) (count int) {
	for *after(word, count) != 0 {
		count++
	}
	return count
}

// decimal reads the digits at the beginning of a word, and returns their value and the rest of the word.
func decimal(word *byte) (value uintptr, rest *byte) {
	for ; *word >= '0' && *word <= '9'; word = after(word, 1) {
		value = 10*value + uintptr(*word-'0')
	}
	return value, word
}

// list is an argv or an environment as execve(2) takes it: words, then nil. An order with more than 255 words
// of one kind is refused.
type list struct {
	words [256]*byte
	count int
}

func (l *list) clear() { l.count, l.words[0] = 0, nil }

// add appends a word; false if the list is full.
func (l *list) add(word *byte) bool {
	if l.count == len(l.words)-1 {
		return false
	}
	l.words[l.count], l.words[l.count+1] = word, nil
	l.count++
	return true
}

// store is memory for words that are put together: we have no heap.
type store struct {
	text   [1 << 15]byte
	length int
}

func (s *store) clear() { s.length = 0 }

// join makes a word of the first count bytes of a word and a text. Without room it returns nil, with which
// the system call that gets it fails (EFAULT).
func (s *store) join(word *byte, count int, text string) *byte {
	if s.length+count+len(text)+1 > len(s.text) {
		return nil
	}
	start := s.length
	s.length += copy(s.text[s.length:], unsafe.Slice(word, count))
	s.length += copy(s.text[s.length:], text)
	s.text[s.length] = 0
	s.length++
	return &s.text[start]
}

// line is a text that is put together: an answer, or a record for the status pipe. A byte for which there
// is no room is dropped.
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

// failure appends the variable failed: `!2 mount /a`.
func (l *line) failure() {
	l.byte('!')
	l.number(uintptr(failed.errno))
	l.byte(' ')
	l.string(failed.action)
	if failed.object != nil {
		l.byte(' ')
		l.word(failed.object)
	}
}
