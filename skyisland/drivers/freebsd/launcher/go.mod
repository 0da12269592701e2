module skyisland/launcher

go 1.24
