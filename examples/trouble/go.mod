module examples.skyisland.test/trouble

go 1.22
