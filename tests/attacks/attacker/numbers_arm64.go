package main

const sysMemfdCreate, sysNameToHandleAt, sysOpenByHandleAt = 279, 264, 265
