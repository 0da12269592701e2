module skyisland.test/attacker

go 1.21
