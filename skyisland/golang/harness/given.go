package harness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"time"
)

var (
	durationType = reflect.TypeOf(time.Duration(0))
	readerType   = reflect.TypeOf(reader{})
	stdinType    = reflect.TypeOf(os.Stdin)
	writerType   = reflect.TypeOf((*writer)(nil))
	bufferType   = reflect.TypeOf((*bytes.Buffer)(nil))
	builderType  = reflect.TypeOf((*strings.Builder)(nil))
	reading      = reflect.TypeOf((*io.Reader)(nil)).Elem()
	readingAt    = reflect.TypeOf((*io.ReaderAt)(nil)).Elem()
	readingByte  = reflect.TypeOf((*io.ByteReader)(nil)).Elem()
	readingRune  = reflect.TypeOf((*io.RuneReader)(nil)).Elem()
	writing      = reflect.TypeOf((*io.Writer)(nil)).Elem()
	writingByte  = reflect.TypeOf((*io.ByteWriter)(nil)).Elem()
	writingText  = reflect.TypeOf((*io.StringWriter)(nil)).Elem()
)

// reader is what a parameter gets that reads: whatever interface of package io it names.
type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

// writer is what a parameter gets that writes. What it holds after the call is a result.
type writer struct{ bytes.Buffer }

func (*writer) Close() error { return nil }

// give reads the next value into a type for which encoding/json has no rule, or a poorer one. It returns false
// where it has no rule of its own.
func (s *source) give(to reflect.Value, first byte) (given bool, wrong *fault) {
	t := to.Type()
	switch {
	case first == '"' && t == durationType:
		text, wrong := s.quoted()
		if wrong == nil {
			var d time.Duration
			var err error
			d, err = time.ParseDuration(text)
			to.SetInt(int64(d))
			wrong = accepted(t, err)
		}
		return true, wrong
	case first == 'n' || t.Kind() != reflect.Interface || t.NumMethod() == 0:
		return false, nil
	case reads(t) && first == '"':
		text, wrong := s.quoted()
		to.Set(reflect.ValueOf(reader{bytes.NewReader([]byte(text))}))
		return true, wrong
	case reads(t) && first == '{':
		return true, s.giveReader(to)
	case t == errorType && first == '"':
		text, wrong := s.quoted()
		to.Set(reflect.ValueOf(errors.New(text)))
		return true, wrong
	}
	return true, s.unwanted(t)
}

// reads reports whether a parameter of this type wants something to read from.
func reads(t reflect.Type) bool {
	return readerType.Implements(t) && !writes(t) && (t.Implements(reading) || t.Implements(readingAt) ||
		t.Implements(readingByte) || t.Implements(readingRune))
}

// writes reports whether a parameter of this type wants something to write to.
func writes(t reflect.Type) bool {
	if t.Kind() != reflect.Interface {
		return t == bufferType || t == builderType
	}
	return writerType.Implements(t) && (t.Implements(writing) || t.Implements(writingByte) || t.Implements(writingText))
}

// giveReader reads {"base64": …} or {"stdin": true}.
func (s *source) giveReader(to reflect.Value) *fault {
	start := s.at
	if data, wrong := s.base64(); wrong == nil {
		to.Set(reflect.ValueOf(reader{bytes.NewReader([]byte(data))}))
		return nil
	}
	s.at = start
	isStdin := false
	wrong := s.object(func(name string) *fault {
		word, wrong := s.word()
		isStdin = wrong == nil && name == "stdin" && word == "true"
		return wrong
	})
	if wrong != nil || !isStdin || !stdinType.Implements(to.Type()) {
		return &fault{reason: wants(to.Type())}
	}
	to.Set(reflect.ValueOf(os.Stdin))
	return nil
}

// base64 reads {"base64": "…"}.
func (s *source) base64() (data string, wrong *fault) {
	wrong = s.object(func(name string) *fault {
		text, wrong := s.quoted()
		decoded, err := base64.StdEncoding.DecodeString(text)
		if wrong == nil && (name != "base64" || err != nil) {
			wrong = &fault{reason: `wants {"base64": …}, of the standard alphabet, with its padding`}
		}
		data = string(decoded)
		return wrong
	})
	return data, wrong
}

func isTime(t reflect.Type) bool {
	return t.PkgPath() == "time" && t.Name() == "Time"
}
