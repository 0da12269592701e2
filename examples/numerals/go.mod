module examples.skyisland.test/numerals

go 1.21

require examples.skyisland.test/roman v1.0.0
