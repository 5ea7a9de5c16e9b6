// The role to pull the image. App Service pulls it with the daemon's identity.

@description('Name of the container registry, in the resource group of this module.')
@minLength(5)
@maxLength(50)
param registryName string

@description('Object id of the identity that pulls the image.')
param principalId string

var roles = loadJsonContent('../roles.json')

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = {
  name: registryName
}

resource pull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, principalId, roles.AcrPull)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.AcrPull)
  }
}

@description('Id of the role assignment.')
output assignmentId string = pull.id
