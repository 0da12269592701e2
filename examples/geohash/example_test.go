package geohash_test

import (
	"fmt"

	"examples.skyisland.test/geohash"
)

func ExampleEncode() {
	fmt.Println(geohash.Encode(48.8584, 2.2945))
	// Output: u09tunquc9zh
}
