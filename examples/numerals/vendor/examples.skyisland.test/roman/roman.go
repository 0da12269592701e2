// Package roman writes Roman numerals.
package roman

import "strings"

var signs = []struct {
	value int
	sign  string
}{
	{1000, "M"}, {900, "CM"}, {500, "D"}, {400, "CD"}, {100, "C"}, {90, "XC"},
	{50, "L"}, {40, "XL"}, {10, "X"}, {9, "IX"}, {5, "V"}, {4, "IV"}, {1, "I"},
}

// Numeral returns a number in Roman numerals.
func Numeral(number int) string {
	var numeral strings.Builder
	for _, s := range signs {
		for ; number >= s.value; number -= s.value {
			numeral.WriteString(s.sign)
		}
	}
	return numeral.String()
}
