// Package netkit uses the address that its jail was given.
package netkit

import (
	"fmt"
	"net"
	"time"
)

// Addresses lists the addresses of the jail, loopback left out.
func Addresses() (string, error) {
	addresses, err := net.InterfaceAddrs()
	lines := ""
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLoopback() && network.IP.To4() != nil {
			lines += network.String() + "\n"
		}
	}
	return lines, err
}

// Greet waits for one connection, greets it, and returns the visitor's address.
func Greet(port int, patience time.Duration) (string, error) {
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_ = listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	visitor, err := listener.Accept()
	if err != nil {
		return "", err
	}
	defer visitor.Close()
	_, err = fmt.Fprintln(visitor, "hello from a jail")
	host, _, _ := net.SplitHostPort(visitor.RemoteAddr().String())
	return host, err
}

// Dial connects, and returns the first 256 bytes at most that the other side sends.
func Dial(address string, patience time.Duration) (string, error) {
	connection, err := net.DialTimeout("tcp4", address, patience)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	buffer := make([]byte, 256)
	count, err := connection.Read(buffer)
	return string(buffer[:count]), err
}
