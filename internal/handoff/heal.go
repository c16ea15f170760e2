package handoff

import (
	"fmt"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// Heal gives a TCP listener back its listening state if somebody called shutdown() on it, and its backlog if a
// worker's listen() shrank it. It returns a sentence when there was something to tell.
func Heal(s *sockets.Socket) string {
	if s.Info.Network != "tcp" || s.Backlog == 0 {
		return ""
	}
	first, second := s.FD, s.Alternate // in the kernel's order of the pair
	if s.Exchanged {
		first, second = second, first
	}
	restored := false
	for i, fd := range []*sys.FD{first, second} {
		if fd == nil {
			continue
		}
		listening := sys.Accepting(fd.Num())
		_, limit, err := sys.Backlog(fd.Num())
		if listening && err == nil && limit >= s.Backlog {
			continue
		}
		partner := i == 0 && second != nil && sys.Accepting(second.Num())
		if err := sys.Listen(fd.Num(), s.Backlog); err != nil {
			return fmt.Sprintf("socket %s (%s) does not listen any more and cannot be repaired: %v", s.Name, s.Info.Address, err)
		}
		restored = restored || !listening
		if !listening && partner {
			// Who listens anew comes last in the SO_REUSEPORT group, whose order is all that the program knows.
			s.Exchanged = !s.Exchanged
		}
	}
	if !restored {
		return ""
	}
	if s.Alternate != nil {
		// If both had stopped the group, and its program, are new.
		if err := SteerTo(s, s.Steered); err != nil {
			return fmt.Sprintf("socket %s (%s) had been shut down by a worker, listens again, and cannot be steered: %v", s.Name, s.Info.Address, err)
		}
	}
	return fmt.Sprintf("socket %s (%s) had been shut down by a worker and listens again", s.Name, s.Info.Address)
}

// SteerTo sends what arrives from now on at the pair s to the half that generations of slot accept on.
func SteerTo(s *sockets.Socket, slot int) error {
	if err := divert.Steer(s.FD.Num(), s.Place(slot)); err != nil {
		return err
	}
	s.Steered = slot
	return nil
}
