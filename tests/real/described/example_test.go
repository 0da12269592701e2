package places_test

import (
	"fmt"

	"example.com/user/repo"
)

func Example() {
	fmt.Println("by words:", places.Encode(1, 2))
	// Output: by words: 1.0,2.0
}

func ExampleEncode() {
	fmt.Println(places.Encode(100.1, 80.9))
	// Output: 100.1,80.9
}

// Each line is a call.
func ExampleEncode_more() {
	lat := 1 + 0.5
	fmt.Println(places.Encode(lat, -2))
	fmt.Println(places.Encode(3, 4))
	// Output:
	// 1.5,-2.0
	// 3.0,4.0
}

func ExampleDecode() {
	point, err := places.Decode("1.5,2.5")
	if err != nil {
		panic(err)
	}
	fmt.Println(point.Lat)
	// Output: 1.5
}

func ExampleClient_Ask() {
	client := places.NewClient("ab")
	fmt.Println(client.Ask(2))
	// Output: abab
}

func ExampleSplit() {
	for _, part := range places.Split("b a", " ") { // no single call
		fmt.Println(part)
	}
	// Unordered output:
	// a
	// b
}

func ExampleSum() {
	one := 1
	one++
	fmt.Println(places.Sum(one, 2))
	// Output: 4
}
