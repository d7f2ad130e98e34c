package engine

import "sync"

// mailbox is how others talk to a loop: what is posted runs on the loop, between
// two waits.
type mailbox struct {
	wake func() error

	mu     sync.Mutex
	posts  []func(*loop)
	closed bool
}

// post leaves f for the loop. False: the loop has ended, and f will not run.
func (m *mailbox) post(f func(*loop)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.posts = append(m.posts, f)
	if len(m.posts) == 1 {
		_ = m.wake() // fails only on a closed poller, and that is closed under this lock
	}
	return true
}

// ask runs f on the loop and waits for it; the engine must run. False: the loop has ended.
func (l *loop) ask(f func(*loop)) bool {
	done := make(chan struct{})
	ok := l.mailbox.post(func(l *loop) {
		f(l)
		close(done)
	})
	if ok {
		<-done
	}
	return ok
}

// empty runs what was posted.
func (m *mailbox) empty(l *loop) {
	m.mu.Lock()
	posts := m.posts
	m.posts = nil
	m.mu.Unlock()
	for _, f := range posts {
		f(l)
	}
}

// close refuses further posts and gives the last ones back.
func (m *mailbox) close() []func(*loop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	posts := m.posts
	m.posts = nil
	return posts
}
