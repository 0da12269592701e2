package harness

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// given is what a function is called with.
type given struct {
	in []reflect.Value // of a variadic function, the last is the slice
	// writers are what the function may write to: what they hold after the call is a result.
	writers []interface{ String() string }
}

func (g *given) written() (written [][]byte) {
	for _, w := range g.writers {
		written = append(written, []byte(w.String()))
	}
	return written
}

// arguments reads what a function is called with: an array of what its parameters take, in order, or an object
// by their names, where names has one for each. No value stands for a context or a writer: these are made here.
func (s *source) arguments(function reflect.Type, names []string, until context) (*given, *fault) {
	g := &given{in: make([]reflect.Value, function.NumIn())}
	var asked []int // the parameters that want a value
	for i := range g.in {
		in := reflect.New(function.In(i)).Elem()
		g.in[i] = in
		switch t := in.Type(); {
		case t.PkgPath() == "context" && t.Name() == "Context":
			in.Set(reflect.ValueOf(until))
		case writes(t):
			g.writers = append(g.writers, giveWriter(in))
		default:
			asked = append(asked, i)
		}
	}
	var wrong *fault
	switch s.peek() {
	case '[':
		wrong = s.positional(function, asked, g.in)
	case '{':
		wrong = s.byName(function, names, asked, g.in)
	default:
		wrong = &fault{reason: "wants an array, or an object by the parameters' names"}
	}
	if wrong == nil && !s.end() {
		wrong = s.malformed("the end")
	}
	return g, wrong
}

func (s *source) positional(function reflect.Type, asked []int, in []reflect.Value) *fault {
	most, n := len(asked), 0
	isVariadic := function.IsVariadic() && most > 0 && asked[most-1] == len(in)-1
	var rest reflect.Value
	if isVariadic {
		most--
		rest = in[len(in)-1]
	}
	wrong := s.array(func(i int) *fault {
		n++
		switch {
		case i < most:
			return s.decode(in[asked[i]])
		case isVariadic:
			rest.Set(reflect.Append(rest, reflect.Zero(rest.Type().Elem())))
			return s.decode(rest.Index(rest.Len() - 1))
		}
		return s.skip()
	})
	if wrong == nil && (n < most || n > most && !isVariadic) {
		reason := "of these there are " + strconv.Itoa(n) + ", and " + function.String() + " takes " + strconv.Itoa(most)
		if isVariadic {
			reason += " or more"
		}
		wrong = &fault{reason: reason}
	}
	return wrong
}

// byName reads an object by the names of the parameters. Only that of a variadic one may be left out.
func (s *source) byName(function reflect.Type, names []string, asked []int, in []reflect.Value) *fault {
	if len(names) != len(in) {
		return &fault{reason: "wants an array: the parameters' names are not known"}
	}
	missing := map[string]int{}
	takes := make([]string, len(asked))
	for n, i := range asked {
		takes[n] = names[i]
		missing[names[i]] = i
	}
	given := map[string]bool{}
	wrong := s.object(func(name string) *fault {
		i, ok := missing[name]
		switch {
		case given[name]:
			return &fault{reason: "is there twice"}
		case !ok || name == "_":
			return &fault{reason: "is no parameter that takes a value; there are " + strings.Join(takes, ", ")}
		}
		given[name] = true
		delete(missing, name)
		return s.decode(in[i])
	})
	if wrong != nil {
		return wrong
	}
	for n, i := range asked {
		if _, ok := missing[takes[n]]; ok && !(function.IsVariadic() && i == len(in)-1) {
			return &fault{reason: takes[n] + " is missing; it " + wants(in[i].Type())}
		}
	}
	return nil
}

// giveWriter makes what a parameter writes to.
func giveWriter(in reflect.Value) interface{ String() string } {
	made := reflect.New(writerType.Elem())
	if in.Kind() == reflect.Pointer {
		made = reflect.New(in.Type().Elem())
	}
	in.Set(made)
	return made.Interface().(interface{ String() string })
}

// context is a context.Context that ends shortly before the call's deadline. To link package context would add
// 120 KB to every binary.
type context struct {
	deadline time.Time
	done     chan struct{}
}

// contextUntil returns a context for a call that is killed after this time. It ends a little earlier, so that a
// function can still answer.
func contextUntil(killed time.Duration) context {
	c := context{done: make(chan struct{})}
	left := killed - min(killed/20, time.Second/2)
	c.deadline = time.Now().Add(left)
	time.AfterFunc(left, func() { close(c.done) })
	return c
}

func (c context) Deadline() (time.Time, bool) { return c.deadline, true }
func (c context) Done() <-chan struct{}       { return c.done }
func (c context) Value(any) any               { return nil }
func (c context) Err() error {
	select {
	case <-c.done:
		return deadlineExceeded{}
	default:
		return nil
	}
}

// deadlineExceeded is context.DeadlineExceeded, to errors.Is.
type deadlineExceeded struct{}

func (deadlineExceeded) Error() string          { return "context deadline exceeded" }
func (deadlineExceeded) Timeout() bool          { return true }
func (deadlineExceeded) Temporary() bool        { return true }
func (d deadlineExceeded) Is(target error) bool { return target.Error() == d.Error() }
