// A program that asks much of the kernel, all of it within the rights of a function.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Print("child")
		return
	}
	var group sync.WaitGroup
	for range 50 {
		group.Add(1)
		go func() { defer group.Done(); runtime.LockOSThread() }()
	}
	group.Wait()
	must("interfaces", second(net.Interfaces()))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must("listen", err)
	go func() {
		conn, err := listener.Accept()
		must("accept", err)
		conn.Write([]byte("hello"))
		conn.Close()
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	must("dial", err)
	said, err := io.ReadAll(conn)
	must("read", err)
	_, err = net.ListenPacket("udp", "127.0.0.1:0")
	must("udp", err)
	_, err = net.Listen("unix", os.TempDir()+"/socket")
	must("unix", err)
	must("mkdir", os.MkdirAll("/tmp/a/b", 0o755))
	must("write", os.WriteFile("/tmp/a/b/c", said, 0o644))
	must("remove", os.RemoveAll("/tmp/a"))
	out, err := exec.Command("/proc/self/exe", "child").Output()
	must("exec", err)
	fmt.Println(string(said), string(out))
}

func second[T any](_ T, err error) error { return err }

func must(what string, err error) {
	if err != nil {
		fmt.Println(what, err)
		os.Exit(1)
	}
}
