package main

import "syscall"

// orderBytes bounds an order; ORDER_BYTES in launching.py is less.
const orderBytes = 1 << 20

// folder is one of the host that the jail sees.
type folder struct {
	source, target string
	writable       bool
}

// limit is one that setrlimit(2) sets.
type limit struct{ resource, maximum int }

// order is what the island wants.
type order struct {
	verb               string
	name, clone, cwd   string
	login              string
	island, uid, devfs int
	blamed             int
	parameters         []parameter
	folders            []folder
	limits             []limit
	rules, visible     []string
	argv, env          []string
}

// read reads an order up to the end of the island's side; false if it is not understood.
func read(socket int) (o order, ok bool) {
	text, chunk := []byte(nil), make([]byte, 1<<14)
	for {
		n, err := syscall.Read(socket, chunk)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || len(text)+n > orderBytes {
			return o, false
		}
		if n == 0 {
			break
		}
		text = append(text, chunk[:n]...)
	}
	o.cwd = "/"
	start := 0
	for i, character := range text {
		if character != 0 {
			continue
		}
		word := string(text[start:i])
		start = i + 1
		if o.verb == "" {
			o.verb = word
		} else if word == "" || !o.take(word[0], word[1:]) {
			return o, false
		}
	}
	return o, start == len(text) && o.complete()
}

// take takes one word, without its first letter, which is its kind.
func (o *order) take(kind byte, word string) (ok bool) {
	key, value, ok := cut(word, '=')
	switch kind {
	case 'n': // the name of the jail and of its rules
		o.name = word
	case 'c': // the clone: the folder that is the jail's root
		o.clone = word
	case 'p': // the island's pid, with which the program dies
		o.island, ok = decimal(word)
		return ok
	case 'm': // the peak of its memory, in bytes, from which the island blames that for a failure
		o.blamed, ok = decimal(word)
		return ok
	case 's', 'i', 'b', '4': // a parameter of the jail: a string, an integer, a boolean, an IPv4 address
		return o.parameter(kind, key, value)
	case 'q': // an rctl(8) rule without its subject, `maxproc:deny=32`
		o.rules = append(o.rules, word)
	case 'r', 'w': // a folder of the host, to be read, or to be written as well; its target comes next
		o.folders = append(o.folders, folder{source: word, writable: kind == 'w'})
	case 't': // where the jail sees it; the folder is there
		if len(o.folders) == 0 {
			return false
		}
		o.folders[len(o.folders)-1].target = word
	case 'd': // the devfs ruleset of its /dev
		o.devfs, ok = decimal(word)
		return ok
	case 'v': // a name that it may see there
		o.visible = append(o.visible, word)
	case 'l': // a resource limit, by its number: `8=256`
		resource, good := decimal(key)
		maximum, fine := decimal(value)
		o.limits = append(o.limits, limit{resource, maximum})
		return good && fine
	case 'u': // who runs the program: `skyfn=1900000001`
		o.login = key
		o.uid, ok = decimal(value)
		return ok
	case 'h': // its working directory
		o.cwd = word
	case 'a': // a word of its command line
		o.argv = append(o.argv, word)
	case 'e': // a variable of its environment
		o.env = append(o.env, word)
	default:
		return false
	}
	return true
}

// complete tells whether nothing is missing without which harm could be done.
func (o *order) complete() bool {
	if o.name == "" || len(o.clone) < 2 || o.clone[0] != '/' {
		return false
	}
	for _, one := range o.folders {
		if one.target == "" {
			return false
		}
	}
	return o.verb == "remove" ||
		o.verb == "make" && o.uid != 0 && o.devfs != 0 && o.island != 0 && len(o.argv) > 0
}

// cut splits a word at the first separator.
func cut(word string, separator byte) (before, after string, found bool) {
	for i := 0; i < len(word); i++ {
		if word[i] == separator {
			return word[:i], word[i+1:], true
		}
	}
	return word, "", false
}

func decimal(word string) (value int, ok bool) {
	for _, digit := range []byte(word) {
		if digit < '0' || digit > '9' || value > 1<<55 {
			return 0, false
		}
		value = 10*value + int(digit-'0')
	}
	return value, word != ""
}

func digits(value int) string {
	if value < 0 {
		return "-" + digits(-value)
	}
	if value < 10 {
		return string(rune('0' + value))
	}
	return digits(value/10) + digits(value%10)
}
