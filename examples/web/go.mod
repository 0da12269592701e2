module examples.skyisland.test/web

go 1.24
