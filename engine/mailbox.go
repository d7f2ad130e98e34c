package engine

import "sync"

// mailbox is how other goroutines talk to a loop. Functions that are posted run on the loop,
// between two waits.
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
		defer close(done)
		f(l)
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
	defer func() {
		if len(posts) > 0 { // a callback has called runtime.Goexit: the loop ends, and empties the mailbox again
			m.mu.Lock()
			m.posts = append(posts, m.posts...)
			m.mu.Unlock()
		}
	}()
	for len(posts) > 0 {
		f := posts[0]
		posts = posts[1:]
		f(l)
	}
}

// close refuses further posts.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}
