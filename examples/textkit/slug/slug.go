// Package slug is a package in a subfolder of its repository.
package slug

import (
	"strings"
	"unicode"
)

// Make turns a title into words of small letters joined by dashes.
func Make(title string) string {
	words := strings.FieldsFunc(title, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return strings.ToLower(strings.Join(words, "-"))
}
