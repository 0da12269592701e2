module example.com/user/repo

go 1.21
