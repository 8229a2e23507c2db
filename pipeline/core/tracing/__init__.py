"""From a case to the visits it overlapped, and back: pure functions of visits, reports and policies, vectorised."""
