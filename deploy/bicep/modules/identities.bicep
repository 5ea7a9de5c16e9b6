// Two identities: the daemon's own, and the one that an IoT hub routes with. No secret belongs to either.

@description('Region of the identities.')
param location string

@description('Name of the identity of the daemon.')
@minLength(3)
@maxLength(128)
param daemonName string

@description('Name of the identity that the IoT hub sends its events with.')
@minLength(3)
@maxLength(128)
param routingName string

@description('Issuer of an AKS cluster: az aks show --query oidcIssuerProfile.issuerUrl. Empty: no cluster is trusted.')
param oidcIssuer string

@description('Namespace of the service account in the cluster.')
param serviceAccountNamespace string

@description('Name of the service account in the cluster.')
param serviceAccountName string

@description('Tags of the identities.')
param tags object

resource daemon 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: daemonName
  location: location
  tags: tags
}

// A hub cannot be created with an endpoint that its system-assigned identity opens: that identity is there, and can be given a role,
// only after the hub. One of its own can have the role before.
resource routing 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: routingName
  location: location
  tags: tags
}

// Exactly one service account of one cluster may be the daemon.
resource federation 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = if (!empty(oidcIssuer)) {
  parent: daemon
  name: 'twinsync-aks'
  properties: {
    issuer: oidcIssuer
    subject: 'system:serviceaccount:${serviceAccountNamespace}:${serviceAccountName}'
    audiences: [
      'api://AzureADTokenExchange'
    ]
  }
}

@description('Resource id of the daemon\'s identity.')
output daemonId string = daemon.id

@description('Client id of the daemon\'s identity.')
output daemonClientId string = daemon.properties.clientId

@description('Object id of the daemon\'s identity, which roles are assigned to.')
output daemonPrincipalId string = daemon.properties.principalId

@description('Resource id of the identity that the IoT hub routes with.')
output routingId string = routing.id

@description('Object id of the identity that the IoT hub routes with.')
output routingPrincipalId string = routing.properties.principalId
