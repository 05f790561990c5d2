variable "name" {
  description = "Prefix of the names, and the dimension `Node` of the metrics."
  type        = string
}

variable "node_url" {
  description = "Where clients find the API."
  type        = string

  validation {
    condition     = startswith(var.node_url, "https://")
    error_message = "The check goes over the Internet, so over HTTPS."
  }
}

variable "public_api" {
  description = "An Esplora API of the same network to compare with; null: none."
  type        = string
  default     = null
}

variable "kms_key_arn" {
  type = string
}
