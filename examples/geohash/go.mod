module examples.skyisland.test/geohash

go 1.21
