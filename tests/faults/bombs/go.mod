module bombs

go 1.24
