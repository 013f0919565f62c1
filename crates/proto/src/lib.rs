//! Messages and events exchanged between dtwn's processes, and their encoding.
