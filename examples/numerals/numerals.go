// Package numerals brings its dependency along in its vendor folder.
package numerals

import "examples.skyisland.test/roman"

// Year writes a year as the Romans would have.
func Year(year int) string { return roman.Numeral(year) }
