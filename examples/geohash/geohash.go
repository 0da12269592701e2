// Package geohash turns places on Earth into short strings and back.
package geohash

import "strings"

const alphabet = "0123456789bcdefghjkmnpqrstuvwxyz"

// Encode returns the geohash of a place, twelve characters long.
//
// A place beyond a pole or the date line gets the geohash of the nearest place on the map.
func Encode(latitude, longitude float64) string {
	return EncodeWithPrecision(latitude, longitude, 12)
}

// EncodeWithPrecision returns the geohash of a place, of the given number of characters.
func EncodeWithPrecision(latitude, longitude float64, characters int) string {
	south, north, west, east := -90.0, 90.0, -180.0, 180.0
	var hash strings.Builder
	for bits, index, even := 0, 0, true; hash.Len() < characters; even = !even {
		index <<= 1
		if even {
			if middle := (west + east) / 2; longitude >= middle {
				index |= 1
				west = middle
			} else {
				east = middle
			}
		} else {
			if middle := (south + north) / 2; latitude >= middle {
				index |= 1
				south = middle
			} else {
				north = middle
			}
		}
		if bits++; bits == 5 {
			hash.WriteByte(alphabet[index])
			bits, index = 0, 0
		}
	}
	return hash.String()
}

// Decode returns the middle of the field that a geohash names.
func Decode(hash string) (latitude, longitude float64) {
	south, north, west, east := -90.0, 90.0, -180.0, 180.0
	even := true
	for _, character := range strings.ToLower(hash) {
		index := strings.IndexRune(alphabet, character)
		for bit := 4; bit >= 0; bit-- {
			high := index>>bit&1 == 1
			switch {
			case even && high:
				west = (west + east) / 2
			case even:
				east = (west + east) / 2
			case high:
				south = (south + north) / 2
			default:
				north = (south + north) / 2
			}
			even = !even
		}
	}
	return (south + north) / 2, (west + east) / 2
}
