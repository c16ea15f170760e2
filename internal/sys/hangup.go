package sys

import "syscall"

// ConnHungUp reports whether the peer of the connected stream socket c has closed it altogether, and not only
// finished writing.
func ConnHungUp(c syscall.Conn) (bool, error) {
	var hung bool
	err := control(c, func(fd int) (err error) { hung, err = HungUp(fd); return err })
	return hung, err
}
