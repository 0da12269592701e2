module examples.skyisland.test/netkit

go 1.21
