"""HTTP routes: the job API, the APIs of A1111 and OpenAI, the MCP tool, health."""
