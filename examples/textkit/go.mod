module examples.skyisland.test/textkit

go 1.21
